"""A trained baseline's run folder: the same files, test cases and metrics as those of an LLM recommender.

Scores are over the whole catalogue, so there is no beam and no normaliser; where the report asks for one, a
baseline's numbers stand under "trie".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bearray.baselines.base import top_titles
from bearray.baselines.cache import CARD, WEIGHTS, Fitted
from bearray.baselines.data import pad_titles
from bearray.config import DataConfig, config_hash, differences, to_dict
from bearray.data import Dataset
from bearray.errors import ResumeError
from bearray.evaluation.predictions import predictions_in, to_table
from bearray.evaluation.shards import write_shard
from bearray.metrics import evaluate
from bearray.provenance import made
from bearray.runs import Storage
from bearray.task import Case, Split, sampled_windows

KS = (1, 5, 10)
"""Cut-offs of HR@K and NDCG@K."""
NO_BASE_MODEL = "no language model"
_NORMALIZE = "trie"
_LIST = 10
_CONFIG, _RESULT, _METRICS, _CHECKPOINTS = "config.json", "result.json", "metrics.jsonl", "checkpoints"


def predict(
    fitted: Fitted, dataset: Dataset, data: DataConfig, split: Split, *, exclude_history: bool = False
) -> pa.Table:
    """The ten best titles of the catalogue for each sampled window of a split, as in
    `bearray.evaluation.predictions`; an item stands for all that share its title."""
    windows = sampled_windows(dataset, data, split)
    lists, users = windows["item_ids"].to_list(), windows["user_id"].to_list()
    histories = pad_titles([items[:-1] for items in lists], fitted.title_of_item, fitted.max_history)
    titles, scores = top_titles(
        fitted.model, histories, fitted.num_titles, _LIST, exclude_history=exclude_history
    )
    warm = {int(i) for items in dataset.train["item_ids"] for i in items}
    cases = [
        Case(
            row=row,
            user=int(users[row]),
            prompt=[],
            target_item=int(items[-1]),
            target_title=fitted.title_of_item[int(items[-1])],
            warm=int(items[-1]) in warm,
        )
        for row, items in enumerate(lists)
    ]
    return to_table(cases, titles, scores, _item_of_title(fitted))


def _item_of_title(fitted: Fitted) -> np.ndarray:
    """[titles] the lowest item id that has each title."""
    items = np.zeros(fitted.num_titles, dtype=np.int64)
    for item, title in sorted(fitted.title_of_item.items(), reverse=True):
        items[title] = item
    return items


def begin_baseline_run(
    name: str,
    dataset: Dataset,
    data: DataConfig,
    settings: Any,
    folder: Storage,
    *,
    llm: Mapping[str, Any] | None = None,
    exclude_history: bool = False,
) -> None:
    """Write a baseline's config.json, before it is trained; one that says the same stays.

    Args:
        name: the baseline's name.
        dataset, data, settings, folder, llm, exclude_history: as `write_baseline_run`.

    Raises:
        ResumeError: the folder is of a run with other settings or other data.
        StorageError: it cannot be written.
    """
    about = {
        "run": _settings(name, data, settings, llm, exclude_history),
        "role": "method",
        "method": name,
        "dataset": dataset.name,
        "base_model": NO_BASE_MODEL,
        "base_model_kind": "text-free baseline" if llm is None else "baseline with a language model's help",
        "data_hash": dataset.content_hash,
    }
    if folder.exists(_CONFIG):
        old = folder.read_json(_CONFIG)
        changed = differences({entry: old.get(entry) for entry in about}, about)
        if changed:
            raise ResumeError(
                f"{folder.root} holds a run with other settings: {'; '.join(changed)}; give another --out"
            )
        return
    folder.write_json(_CONFIG, about | made())


def _settings(
    name: str, data: DataConfig, settings: Any, llm: Mapping[str, Any] | None, exclude_history: bool
) -> dict[str, Any]:
    return {
        "data": to_dict(data),
        "baseline": {"name": name, **to_dict(settings), **({} if llm is None else {"llm": dict(llm)})},
        "decoding": {"exclude_history": exclude_history},
    }


def write_baseline_run(
    fitted: Fitted,
    dataset: Dataset,
    data: DataConfig,
    settings: Any,
    folder: Storage,
    *,
    llm: Mapping[str, Any] | None = None,
    exclude_history: bool = False,
) -> dict[str, Any]:
    """Test a trained baseline and write its run folder; a folder that is there is written again.

    Args:
        fitted: the baseline.
        dataset: what it was trained on.
        data: which validation and test windows are ranked.
        settings: the baseline's config.
        folder: the run folder.
        llm: which language model helped, and how; None: none did.
        exclude_history: leave titles of the history out of the lists (the epoch was chosen with them in).

    Returns:
        {"valid": metrics, "test": metrics} as `bearray.metrics.evaluate`.

    Raises:
        ResumeError: the folder is of a run with other settings or other data.
        StorageError: it cannot be written.
    """
    name = fitted.model.name
    begin_baseline_run(name, dataset, data, settings, folder, llm=llm, exclude_history=exclude_history)
    run = _settings(name, data, settings, llm, exclude_history)

    def ranked(split: Split) -> pa.Table:
        return predict(fitted, dataset, data, split, exclude_history=exclude_history)

    folder.write_lines(_METRICS, [{"kind": "epoch", **row} for row in fitted.history])
    for file in (CARD, WEIGHTS):
        folder.child(_CHECKPOINTS, name).write_bytes(file, (fitted.folder / file).read_bytes())
    valid = evaluate(ranked("valid").to_pandas(), KS)
    began = time.perf_counter()
    test = evaluate(_write_predictions(ranked("test"), run, folder), KS)
    seconds = time.perf_counter() - began
    best = fitted.history[fitted.best_epoch - 1]
    folder.write_json(
        _RESULT,
        {
            "status": "finished",
            "error": None,
            "best_epoch": fitted.best_epoch,
            "valid": {n.removeprefix("valid_"): v for n, v in best.items() if "@" in n},
            "test": {_NORMALIZE: test},
            "checkpoint": f"{_CHECKPOINTS}/{name}",
            "seconds": {
                "train": sum(row["seconds"] for row in fitted.history),
                "valid": sum(row["valid_seconds"] for row in fitted.history),
                "test": seconds,
            },
            "chosen": False,
        },
    )
    return {"valid": valid, "test": test}


def _write_predictions(table: pa.Table, run: dict[str, Any], folder: Storage) -> pd.DataFrame:
    """All test cases in one shard, which takes a second to make, so there is nothing to resume."""
    rows = len(table)
    shards = predictions_in(folder.child("predictions"), rows, rows)
    shards.begin({"split": "test", "rows": rows, "shard_size": rows, "config": config_hash(run)})
    write_shard(shards.folder, 0, table)
    return shards.read()
