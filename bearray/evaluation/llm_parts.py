"""What a language model has to say for a baseline, said once by Ray Data actors and kept.

Three tables, each in a folder named by a hash of all that it depends on (data, model, settings): vectors of
titles, the teacher's lists for the training windows, chains of thought. A table is made shard by shard, so
what was interrupted is continued; two baselines share the tables that they both need.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from bearray.backbones.resolve import resolve_base
from bearray.baselines import Inputs, LLMParts
from bearray.baselines.parts import PARTS, write_parts
from bearray.config import DataConfig, LanguageModelConfig, RunConfig, config_hash, override
from bearray.evaluation.evaluate import decode_split
from bearray.evaluation.llm_actors import CHAINS, VECTORS, ChainWriter, TitleReader
from bearray.evaluation.pool import ShardActor, make_shards
from bearray.evaluation.predictions import predictions_in
from bearray.evaluation.shards import MANIFEST, ShardedTable
from bearray.runs import ADAPTER, Storage
from bearray.trained import model_identity, open_run, relocated

Need = Literal["teacher", "chains"]
OnPart = Callable[[str, int, int], None]
"""Told what is made, shards done, shards in all."""


def llm_cache_dir() -> str:
    """Where it is kept: $BEARRAY_CACHE/llm, else ~/.cache/bearray/llm."""
    configured = os.environ.get("BEARRAY_CACHE")
    return str((Path(configured) if configured else Path.home() / ".cache" / "bearray") / "llm")


def model_content(base: str) -> str:
    """A hash of a base model's weights and tokenizer, so that another model in the same folder is another
    one.

    Of a folder: every small file whole; of files above 4 MB their size and 64 KB in every 4 MB. Of a hub id:
    its name.
    """
    folder = Path(base)
    digest = hashlib.sha256()
    if not folder.is_dir():
        return hashlib.sha256(base.encode()).hexdigest()
    step, sample = 4 << 20, 64 << 10
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".model")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with open(file, "rb") as stream:
            for start in range(0, size, step):
                stream.seek(start)
                digest.update(stream.read(step if size <= step else sample))
            stream.seek(max(0, size - sample))
            digest.update(stream.read())
    return digest.hexdigest()


def _adapter_content(checkpoint: str | None) -> str | None:
    if checkpoint is None:
        return None
    folder = Storage(checkpoint).child(ADAPTER)
    digest = hashlib.sha256()
    for name in folder.names():
        digest.update(name.encode() + folder.read_bytes(name))
    return digest.hexdigest()


class LanguageModel:
    """A language model that helps baselines on a data set.

    Args:
        settings: which model, and how its work is done.
        inputs: the data.
        data: how it was opened.

    Raises:
        ModelError: an unknown local size.
        MissingFileError, ResumeError: the teacher's run folder is not there, not finished, or of other data.
    """

    def __init__(self, settings: LanguageModelConfig, inputs: Inputs, data: DataConfig) -> None:
        self.settings, self.inputs = settings, inputs
        self.root = Storage(settings.kept_in or llm_cache_dir())
        changes = {
            "data.train_windows": None,
            "evaluation.actors": settings.actors,
            "evaluation.shard_size": settings.shard_size,
        }
        self.checkpoint: str | None = None
        if settings.teacher is None:
            own = {
                "data.path": data.path,
                "data.unescape": data.unescape,
                "data.strict": data.strict,
                "model.base": resolve_base(settings.base_model, inputs.dataset),
                "model.dtype": settings.dtype,
            }
            self.config = override(RunConfig(), {**own, **changes})
        else:
            run = open_run(Storage(settings.teacher))
            named = run.config.model.base
            told = named if named == settings.base_model else None  # the user's own word, too
            place = relocated(run, data_dir=data.path, base_model=told)
            self.config = override(place, changes)
            self.checkpoint = run.checkpoint
        self.content: dict[str, Any] = {
            "data": inputs.dataset.content_hash,
            "model": model_content(self.config.model.base),
            "dtype": self.config.model.dtype,
        }

    def parts(
        self, need: Need, baseline: Any, connect: Callable[[], None], on_part: OnPart
    ) -> tuple[LLMParts, str]:
        """What a baseline needs, from the cache or made now.

        Args:
            need: lists of the teacher, or chains of thought; vectors of titles always.
            baseline: the baseline's config.
            connect: connects this process to Ray; called where something has to be made.
            on_part: called as shards finish.

        Returns:
            The parts, and the folder where their file is.

        Raises:
            ResourceError: more actors are asked for than the cluster can hold.
            DataError: a shard is missing or damaged after all were made.
        """
        vectors, key = self._vectors(connect, on_part)
        found: dict[str, Any] = {"title_vectors": vectors}
        extra, more = (self._lists if need == "teacher" else self._chains)(baseline, connect, on_part)
        parts = LLMParts(key=config_hash([key, more], 32), **found, **extra)
        folder = self.root.child(f"parts-{parts.key}")
        if not folder.exists(PARTS):
            with tempfile.TemporaryDirectory() as name:
                write_parts(Path(name) / PARTS, parts)
                folder.write_bytes(PARTS, (Path(name) / PARTS).read_bytes())
        return parts, folder.root

    def identity(self, need: Need) -> dict[str, Any]:
        """Which model helps, and how, as a run's config.json says it; not where anything lies."""
        about = {"base_model": PurePosixPath(self.config.model.base).name, **self.content}
        if need == "teacher":
            about |= {
                "teacher": self.settings.teacher and PurePosixPath(self.settings.teacher).name,
                "adapter": _adapter_content(self.checkpoint),
                "beams": self.settings.beams,
            }
        return about

    def _table(
        self, kind: str, content: Mapping[str, Any], schema: pa.Schema, count: int
    ) -> tuple[ShardedTable, str]:
        key = config_hash({"kind": kind, **content}, 32)
        table = ShardedTable(
            self.root.child(f"{kind}-{key}"), schema, range(count), self.settings.shard_size, kind
        )
        table.begin({"kind": kind, "rows": count, "shard_size": self.settings.shard_size, **content})
        return table, key

    def _make(
        self,
        actor: type[ShardActor],
        table: ShardedTable,
        job: Mapping[str, Any],
        connect: Callable[[], None],
        on_part: OnPart,
    ) -> Any:
        if table.missing():
            connect()
            make_shards(
                actor,
                self.config,
                None,
                "train",
                [(table, job)],
                lambda done, total: on_part(table.what, done, total),
            )
        return table.read()

    def _vectors(self, connect: Callable[[], None], on_part: OnPart) -> tuple[torch.Tensor, str]:
        content = {**self.content, "titles": self._numbering(), "shards": self.settings.shard_size}
        table, key = self._table("vectors", content, VECTORS, self.inputs.num_titles)
        frame = self._make(TitleReader, table, {}, connect, on_part)
        return torch.from_numpy(np.stack(frame["vector"].to_list()).astype(np.float32)), key

    def _chains(
        self, baseline: Any, connect: Callable[[], None], on_part: OnPart
    ) -> tuple[dict[str, torch.Tensor], str]:
        job = {
            "chains": baseline.chains,
            "tokens": baseline.chain_tokens,
            "seed": baseline.train.seed,
            "history": baseline.max_history,
        }
        count = min(baseline.chains, len(self.inputs.data.train))
        content = {**self.content, "titles": self._numbering(), "shards": self.settings.shard_size, **job}
        table, key = self._table("chains", content, CHAINS, count)
        frame = self._make(ChainWriter, table, job, connect, on_part)
        return {
            "example_rows": torch.tensor(frame["window"].to_numpy(), dtype=torch.int64),
            "example_titles": torch.tensor(frame["title"].to_numpy(), dtype=torch.int64),
            "example_labels": torch.tensor(frame["liked"].to_numpy(), dtype=torch.bool),
            "example_vectors": torch.from_numpy(np.stack(frame["vector"].to_list()).astype(np.float32)),
        }, key

    def _lists(
        self, baseline: Any, connect: Callable[[], None], on_part: OnPart
    ) -> tuple[dict[str, torch.Tensor], str]:
        config = override(
            self.config,
            {
                "decoding.method": "grounding",
                "decoding.beam_width": min(baseline.teacher_titles, self.inputs.num_titles),
                "decoding.grounding_beams": self.settings.beams,
                "decoding.grounding_gamma": 0.0,
                "decoding.length_penalty": 0.0,
                "decoding.exclude_history": False,
            },
        )
        content: dict[str, Any] = {
            **self.content,
            **model_identity(config, self.checkpoint, self.inputs.dataset),
            "adapter": _adapter_content(self.checkpoint),
            "titles": baseline.teacher_titles,
            "beams": self.settings.beams,
            "shards": self.settings.shard_size,
        }
        key = config_hash({"kind": "lists", **content}, 32)
        folder = self.root.child(f"lists-{key}")
        table = predictions_in(folder, len(self.inputs.dataset.train), self.settings.shard_size)
        if not folder.exists(MANIFEST) or table.missing():
            connect()
        own = config.decoding.normalize
        frame = decode_split(
            config,
            self.checkpoint,
            {own: folder},
            split="train",
            on_shard=lambda done, total: on_part("lists", done, total),
        )[own]
        of = self.inputs.title_of_item
        titles = [[of[int(i)] for i in items] for items in frame["items"]]
        distances = -np.stack(frame["scores"].to_list()).astype(np.float32)
        return {
            "teacher_titles": torch.tensor(titles, dtype=torch.int64),
            "teacher_distances": torch.from_numpy(distances),
        }, key

    def _numbering(self) -> str:
        return config_hash(sorted(self.inputs.title_of_item.items()), 32)
