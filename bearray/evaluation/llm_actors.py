"""Ray Data actors that have a language model speak for a baseline: vectors of titles, chains of thought."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from bearray.baselines import Inputs, number_titles
from bearray.baselines.chain import chain_prompt
from bearray.baselines.data import title_texts
from bearray.baselines.llm_cf import choose_examples
from bearray.batching import left_pad
from bearray.data.prompts import template_for
from bearray.decoding.embeddings import embed_texts, without_adapter
from bearray.evaluation.pool import ShardActor
from bearray.evaluation.shards import write_shard
from bearray.runs import Storage
from bearray.task import Case

VECTORS = pa.schema([("row", pa.int32()), ("vector", pa.list_(pa.float32()))])
"""row: title id, as baselines number titles."""
CHAINS = pa.schema(
    [
        ("row", pa.int32()),
        ("window", pa.int32()),
        ("title", pa.int32()),
        ("liked", pa.bool_()),
        ("text", pa.string()),
        ("vector", pa.list_(pa.float32())),
    ]
)
"""row: number of the example; window: of the training split; title: title id; vector: of the text."""
_BATCH = 16
"""Chains written at a time."""


class RowActor(ShardActor):
    """Makes shards of a table whose rows are not windows."""

    @abstractmethod
    def rows(self, rows: Sequence[int], job: Mapping[str, Any]) -> pa.Table:
        """The shard's rows, by number."""

    def table(self, cases: Sequence[Case], job: Mapping[str, Any]) -> pa.Table:
        return self.rows([int(row) for row in job["rows"]], job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for i, shard in enumerate(batch["shard"]):
            job = {name: values[i] for name, values in batch.items()}
            began = time.perf_counter()
            table = self.table((), job)
            seconds = time.perf_counter() - began
            write_shard(Storage(str(job["folder"])), int(shard), table, seconds=seconds)
        return {"shard": batch["shard"]}

    @cached_property
    def titles(self) -> list[str]:
        """[T] texts by the title ids of baselines."""
        return title_texts(self.task.dataset.items, unescape=self.config.data.unescape)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Each text's, by the base model."""
        tokens = [self.tokens(text) or [self.task.eos_token_id] for text in texts]
        found = embed_texts(self.model, tokens, prefix=self.task.backbone.bos_tokens)
        return cast(list[list[float]], found.float().cpu().tolist())

    def tokens(self, text: str) -> list[int]:
        """Without special tokens; what looks like one in a title stays text."""
        found = self.task.backbone.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(found["input_ids"])


class TitleReader(RowActor):
    """Vectors of titles, in quotes as the model writes them."""

    def rows(self, rows: Sequence[int], job: Mapping[str, Any]) -> pa.Table:
        texts = [f'"{self.titles[row]}"' for row in rows]
        return pa.table({"row": list(rows), "vector": self.vectors(texts)}, schema=VECTORS)


class ChainWriter(RowActor):
    """Chains of thought about examples; a job says how many there are (chains), the longest in tokens
    (tokens), the seed of their choice, and the longest history of the baseline (history)."""

    def rows(self, rows: Sequence[int], job: Mapping[str, Any]) -> pa.Table:
        dataset, data = self.task.dataset, self.config.data
        template = template_for(dataset.name, data.domain, data.domain_words)
        of = number_titles(dataset.items, unescape=data.unescape)
        inputs = Inputs(dataset, of, int(job["history"]))
        windows, titles, liked = choose_examples(inputs.data, int(job["chains"]), int(job["seed"]))
        items = dataset.train["item_ids"].to_list()
        prompts = [
            chain_prompt(
                template,
                [self.titles[of[int(i)]] for i in items[windows[row]][:-1]],
                self.titles[titles[row]],
                liked=bool(liked[row]),
            )
            for row in rows
        ]
        parts = [prompts[i : i + _BATCH] for i in range(0, len(prompts), _BATCH)]
        texts = [text for part in parts for text in self.write(part, int(job["tokens"]))]
        columns = {
            "row": list(rows),
            "window": windows[list(rows)],
            "title": titles[list(rows)],
            "liked": liked[list(rows)],
            "text": texts,
            "vector": self.vectors(texts),
        }
        return pa.table(columns, schema=CHAINS)

    def write(self, prompts: Sequence[str], tokens: int) -> list[str]:
        """What the base model writes on, greedily. A prompt that is too long loses its beginning."""
        limit = self.config.model.max_prompt_tokens
        asked = [self.tokens(prompt) for prompt in prompts]
        asked = [self.task.backbone.bos_tokens + (t if limit is None else t[-limit:]) for t in asked]
        ids, mask = left_pad(asked, self.task.pad_token_id)
        with torch.no_grad(), without_adapter(self.model):
            out = cast(Any, self.model).generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=self.task.eos_token_id,
                pad_token_id=self.task.pad_token_id,
            )
        decode = self.task.backbone.tokenizer.batch_decode
        return list(decode(out[:, ids.shape[1] :], skip_special_tokens=True))
