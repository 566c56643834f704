"""One folder with all that recommending needs: merged weights, tokenizer, catalogue, settings, model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from transformers import PreTrainedModel

from bearray.config import RunConfig, override, to_dict
from bearray.data.storage import check_output, new_folder
from bearray.errors import ConfigError, StorageError
from bearray.provenance import made
from bearray.runs import Storage
from bearray.serving.card import model_card
from bearray.serving.opening import DTYPES, EXPORT, FORMAT, ITEMS, Opened, find, open_parts
from bearray.trained import CONFIG, RESULT, TrainedRun, load_trained, open_run

CARD = "README.md"


def export_run(
    place: str,
    out: Path,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    data_dir: str | None = None,
    base_model: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Merge a run's adapter into its base model and write an export.

    It holds model.safetensors, the tokenizer, items.parquet (the catalogue, nobody's history), bearray.json
    (settings, figures, versions; no local path) and README.md, the model card. It is there whole or not at
    all.

    Args:
        place: run folder or URI. out: a folder that does not exist or is empty.
        dtype: of the weights. They are merged in float32; "bfloat16" halves the files and rounds, which can
            lose much of what a small adapter has learnt.
        data_dir, base_model: where the run's data and base model are now.
        say: told what is being done.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown `dtype`, or `place` is an export already.
        DataError: `out` is not empty.
        StorageError: it cannot be written.
        As `open_recommender`.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    out = check_output(out)
    folder = find(place)
    if folder.exists(EXPORT):
        raise ConfigError(f"{place} is an export already; give the run folder it was made from, or copy it")
    run = open_run(folder)
    if run.config.model.backbone != "bigrec":
        raise ConfigError(
            f"{run.name} has backbone {run.config.model.backbone}, whose prompts hold vectors beside words; "
            "no plain model can be made of it. bearray recommend and serve open the run folder itself"
        )
    say(f"reading the catalogue of {run.dataset}")
    opened, config = open_parts(run, data_dir=data_dir, base_model=base_model)
    say(f"merging the adapter of {run.name} into {shown(run.base_model)} (float32)")
    merged = load_trained(override(config, {"dtype": "float32"}), run.checkpoint, "cpu").to(DTYPES[dtype])
    about = description(run, opened, dtype)
    with new_folder(out) as new:
        say(f"writing {out}")
        try:
            _write(new, cast(PreTrainedModel, merged), opened, about)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"cannot write the export to {out}: {error}") from error
    return out


def _write(folder: Path, model: PreTrainedModel, opened: Opened, about: Mapping[str, Any]) -> None:
    model.save_pretrained(str(folder), safe_serialization=True)
    opened.backbone.tokenizer.save_pretrained(str(folder))
    frame = opened.items[["item_id", "title"]]
    schema = pa.schema([("item_id", pa.int32()), ("title", pa.string())])
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), folder / ITEMS)
    (folder / CARD).write_text(model_card(about), encoding="utf-8")
    Storage(str(folder)).write_json(EXPORT, dict(about))
    shared = (folder / CARD).stat().st_mode
    for file in folder.iterdir():  # safetensors writes for the owner alone, and a server may be another user
        file.chmod(shared)


def description(run: TrainedRun, opened: Opened, dtype: str) -> dict[str, Any]:
    """What `bearray.json` says: everything but weights and titles, without the paths of this machine."""
    written, result = run.folder.read_json(CONFIG), run.folder.read_json(RESULT)
    template = opened.backbone.template
    torch_name = str(DTYPES[dtype]).removeprefix("torch.")
    return {
        "format": FORMAT,
        "run": run.name,
        "method": run.method,
        "dataset": run.dataset,
        "data_hash": run.data_hash,
        "base_model": shown(run.base_model),
        "base_model_kind": opened.about["base_model_kind"],
        "items": opened.about["items"],
        "titles": opened.about["titles"],
        "dtype": torch_name,
        "backbone": run.config.model.backbone,
        "prompt": {
            "plural": template.plural,
            "past": template.past,
            "singular": template.singular,
            "max_tokens": opened.backbone.max_prompt_tokens,
        },
        "unescape": opened.unescape,
        "decoding": to_dict(opened.decoding),
        "settings": without_paths(run.config),
        "result": {
            name: result[name] for name in ("best_epoch", "valid", "test", "seconds") if name in result
        },
        "trained": {name: written.get(name) for name in ("created", "git", "versions")},
        "exported": made(),
    }


def shown(base: str) -> str:
    """A base model's name for others: hub ids and presets as they are, of a folder its last part."""
    is_path = base[:1] in ("/", ".", "~") or base.count("/") > 1 or "\\" in base
    return PurePosixPath(base.replace("\\", "/")).name if is_path else base


def without_paths(config: RunConfig) -> dict[str, Any]:
    """A run's settings as plain values, with the last parts of paths in their place."""
    start = config.train.init_adapter
    changes = {
        "data.path": PurePosixPath(config.data.path).name,
        "model.base": shown(config.model.base),
        "train.init_adapter": start and (start if start.startswith("run:") else PurePosixPath(start).name),
    }
    return to_dict(override(config, changes))
