"""`bearray baseline`: train and test recommenders that know items by number only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from bearray.config import SASRecConfig


def sasrec(
    *,
    data_dir: str,
    out: Path,
    test_windows: int | None = 5_000,
    sample_seed: int = 42,
    unescape: bool = True,
    strict: bool = False,
    exclude_history: bool = False,
    config: Annotated[SASRecConfig, tyro.conf.arg(name="")] = SASRecConfig(),  # noqa: B008 - frozen
) -> None:
    """Train SASRec on the whole training split, stop by validation NDCG@10, test it, write a run folder.

    It ranks the whole catalogue of titles, with the test windows, metrics and intervals of the LLM
    recommenders; `bearray report` reads the folder. The trained model is kept in the user's cache
    ($BEARRAY_CACHE/baselines or ~/.cache/bearray/baselines), and the same settings on the same data are not
    trained twice; a training that was interrupted is continued.

    Args:
        data_dir: Folder with items.parquet and sequences_{train,valid,test}.parquet.
        out: Run folder to write: config.json, metrics.jsonl, result.json, predictions/, checkpoints/.
        test_windows: Test windows ranked at most (None: all); the published evaluation caps at 5,000.
        sample_seed: Seed of the sample of test windows.
        unescape: Turn HTML entities in titles into characters (decides which items share a title).
        strict: Items without a title are an error instead of being left out.
        exclude_history: Leave titles of the history out of the lists; LLM recommenders do not.
        config: Sizes and training.
    """
    from bearray.baselines import load_or_train_sasrec, number_titles
    from bearray.config import DataConfig
    from bearray.data import open_dataset
    from bearray.evaluation.baseline import write_baseline_run
    from bearray.runs import Storage

    data = DataConfig(
        path=data_dir,
        train_windows=None,
        test_windows=test_windows,
        sample_seed=sample_seed,
        unescape=unescape,
        strict=strict,
    )
    folder = Storage(str(out))
    folder.check_writable()
    dataset = open_dataset(data_dir, strict=strict)
    fitted = load_or_train_sasrec(dataset, number_titles(dataset.items, unescape=unescape), config)
    metrics = write_baseline_run(fitted, dataset, data, config, folder, exclude_history=exclude_history)
    epochs = f"epoch {fitted.best_epoch} of {len(fitted.history)} was best by validation NDCG@10"
    print(f"{fitted.model.name} on {dataset.name}: {epochs}")
    for split, groups in metrics.items():
        print(_table(split, groups))
    print(f"\nmodel: {fitted.folder}\nrun:   {folder.root}")


def _table(split: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a metric, a column for all, warm and cold targets."""
    heads = [f"{group} ({values['n']} windows)" for group, values in groups.items()]
    lines = [f"\n{f'{split}, 95% interval':<22}" + "".join(f"{head:<28}" for head in heads).rstrip()]
    for name in groups["all"]:
        if "@" in name and name != "ndcg@1":  # NDCG@1 is HR@1
            cells = [_cell(values.get(name)) for values in groups.values()]
            lines.append(f"{name.upper():<22}" + "".join(f"{cell:<28}" for cell in cells).rstrip())
    return "\n".join(lines)


def _cell(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
