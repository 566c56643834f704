"""A trained run decoded in another way, as a run folder of its own: D3 on SFT's model, for example.

The model is the other run's, and so are its training's figures. What is chosen about the decoding is chosen
on the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bearray.config import Decoded, config_hash, override, to_dict
from bearray.evaluation.evaluate import decode_split, evaluate_run
from bearray.evaluation.pool import OnShard
from bearray.metrics import evaluate
from bearray.provenance import made
from bearray.runs import Storage
from bearray.trained import CONFIG, RESULT, TrainedRun

METRIC = "ndcg@10"
Changes = Mapping[str, Any]


def choose_decoding(
    run: TrainedRun, options: Sequence[Changes], folder: Storage, *, on_shard: OnShard | None = None
) -> Changes:
    """The option with the highest validation NDCG@10; of equal ones the first. A single one is not measured.

    Args:
        run: the trained run.
        options: changes to its settings by dotted name, such as {"decoding.d3_alpha": 0.9}.
        folder: where the validation split's predictions are kept, so that nothing is decoded twice.
    """
    if len(options) == 1:
        return options[0]
    frames = [_validated(run, changes, folder, on_shard) for changes in options]
    scores = [evaluate(frame, (10,))["all"][METRIC]["mean"] for frame in frames]
    return options[scores.index(max(scores))]


def _validated(run: TrainedRun, changes: Changes, folder: Storage, on_shard: OnShard | None) -> pd.DataFrame:
    """Predictions of the validation split, decoded once for each run and change."""
    config = override(run.config, dict(changes))
    own: Decoded = config.decoding.normalize
    where = {own: folder.child(f"{run.name}-{config_hash(dict(changes), 6)}")}
    return decode_split(config, run.checkpoint, where, split="valid", on_shard=on_shard)[own]


def redecoded(
    run: TrainedRun,
    changes: Changes,
    folder: Storage,
    *,
    valid: Storage,
    method: str,
    kind: str,
    on_shard: OnShard | None = None,
) -> dict[str, Any]:
    """Decode validation and test split of a trained run with other settings, once, into a run folder.

    Args:
        run: the trained run. changes: to its settings, of the group decoding.
        folder: the new run folder; one that is finished stays as it is.
        valid: where the validation split's predictions are kept, as for `choose_decoding`.
        method: what it is called in tables.
        kind: the base model's kind, for reports.

    Returns:
        The content of result.json.

    Raises:
        ResumeError: the folder holds predictions made with other settings.
        DataError: a shard is missing or damaged.
    """
    if folder.exists(RESULT):
        done: dict[str, Any] = folder.read_json(RESULT)
        return done
    config = override(run.config, dict(changes))
    before = run.folder.read_json(RESULT)
    if not folder.exists(CONFIG):
        about = {
            "role": "method",
            "method": method,
            "dataset": run.dataset,
            "base_model": run.base_model,
            "base_model_kind": kind,
            "data_hash": run.data_hash,
            "decoded_from": run.name,
        }
        folder.write_json(CONFIG, {"run": to_dict(config), **about, **made()})
    frame = _validated(run, changes, valid, on_shard)
    metrics = evaluate(frame, config.evaluation.ks)["all"]
    seconds = {"train": before["seconds"]["train"], "valid": frame.attrs.get("seconds")}
    measured = evaluate_run(config, run.checkpoint, folder, on_shard=on_shard)
    result = {
        "status": "finished",
        "error": None,
        "best_epoch": before["best_epoch"],
        "valid": {name: value["mean"] for name, value in metrics.items() if "@" in name},
        "checkpoint": run.checkpoint,
        "seconds": seconds | measured["seconds"],
        "chosen": False,
        "test": measured["test"],
    }
    folder.write_json(RESULT, result)
    return result
