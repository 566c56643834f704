"""A baseline's run folder: the test cases of an LLM run, ranks by brute force, and a report that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bearray import cli
from bearray.baselines import Fitted, load_or_train_sasrec, number_titles
from bearray.config import DataConfig, SASRecConfig, override
from bearray.data import open_dataset
from bearray.errors import ResumeError
from bearray.evaluation.baseline import predict, write_baseline_run
from bearray.evaluation.predictions import read_predictions
from bearray.metrics import hit_ratio, ndcg
from bearray.report.collect import collect
from bearray.runs import Storage

TINY = override(SASRecConfig(), {"hidden": 8, "layers": 1, "train.epochs": 1})


@pytest.fixture(scope="module")
def dataset(demo_dir: Path) -> Any:
    return open_dataset(demo_dir)


@pytest.fixture(scope="module")
def fitted(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    cache = tmp_path_factory.mktemp("cache")
    return load_or_train_sasrec(dataset, number_titles(dataset.items), TINY, cache_dir=cache, progress=False)


@pytest.mark.parametrize("exclude_history", [False, True])
def test_ranks_are_those_of_a_full_sort(dataset: Any, fitted: Fitted, exclude_history: bool) -> None:
    table = predict(fitted, dataset, DataConfig(), "test", exclude_history=exclude_history).to_pandas()
    scores = fitted.scores_for(dataset.test).numpy().copy()
    assert len(table) == len(dataset.test)
    for row, items in enumerate(dataset.test["item_ids"]):
        if exclude_history:
            scores[row, [fitted.title_of_item[i] for i in items[:-1]]] = -np.inf
        order = np.argsort(-scores[row], kind="stable")[:10].tolist()
        target = fitted.title_of_item[items[-1]]
        got = table.iloc[row]
        assert [fitted.title_of_item[i] for i in got["items"]] == order
        assert got["rank"] == (order.index(target) if target in order else np.inf)
        assert (got["target"], got["user_id"]) == (items[-1], dataset.test["user_id"].iloc[row])
    assert np.isfinite(table["rank"]).any()


def test_the_cases_are_those_of_an_llm_run(micro_task: Any, dataset: Any, fitted: Fitted) -> None:
    """Same sample, rows, users, targets and warm marks, so that the report may compare them."""
    table = predict(fitted, dataset, micro_task.config.data, "test")
    cases = micro_task.cases("test")
    for name, values in (
        ("row", [c.row for c in cases]),
        ("user_id", [c.user for c in cases]),
        ("target", [c.target_item for c in cases]),
        ("warm", [c.warm for c in cases]),
    ):
        assert table.column(name).to_pylist() == values
    assert 0 < len(cases) < len(dataset.test)


def test_the_run_folder_is_one_that_the_report_reads(dataset: Any, fitted: Fitted, tmp_path: Path) -> None:
    data = DataConfig(path=dataset.path, train_windows=None, test_windows=20)
    metrics = write_baseline_run(fitted, dataset, data, TINY, Storage(str(tmp_path / "sasrec")))
    (run,) = collect(tmp_path).runs
    assert (run.method, run.dataset, run.status, run.reason) == ("sasrec", dataset.name, "finished", "")
    ranks = read_predictions(Storage(str(tmp_path / "sasrec" / "predictions")))["rank"].to_numpy()
    assert len(ranks) == len(run.predictions["trie"]) == 20
    for k in (1, 5, 10):
        assert metrics["test"]["all"][f"hr@{k}"]["mean"] == pytest.approx(hit_ratio(ranks, k))
        assert metrics["test"]["all"][f"ndcg@{k}"]["mean"] == pytest.approx(ndcg(ranks, k))
    assert run.valid("ndcg@10") == pytest.approx(metrics["valid"]["all"]["ndcg@10"]["mean"])
    assert len(run.epochs) == 1 and run.seconds("train") is not None
    checkpoint = tmp_path / "sasrec" / json.loads((run.folder / "result.json").read_text())["checkpoint"]
    assert {p.name for p in checkpoint.iterdir()} == {"card.json", "model.safetensors"}


def test_a_folder_of_another_run_is_refused(dataset: Any, fitted: Fitted, tmp_path: Path) -> None:
    folder = Storage(str(tmp_path / "run"))
    data = DataConfig(path=dataset.path, test_windows=20)
    write_baseline_run(fitted, dataset, data, TINY, folder)
    write_baseline_run(fitted, dataset, data, TINY, folder)  # the same again is no mistake
    with pytest.raises(ResumeError, match=r"data\.test_windows: 20 -> 10"):
        write_baseline_run(fitted, dataset, override(data, {"test_windows": 10}), TINY, folder)
    with pytest.raises(ResumeError, match=r"baseline\.dropout: 0\.2 -> 0\.5"):
        write_baseline_run(fitted, dataset, data, override(TINY, {"dropout": 0.5}), folder)


def test_settings_that_cannot_work_are_refused_by_name(
    demo_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["baseline", "sasrec", "--data-dir", str(demo_dir), "--out", str(tmp_path / "run")]
    assert cli.run([*arguments, "--heads", "5"]) == 2
    assert "heads is 5; it must be a divisor of hidden (64)" in capsys.readouterr().err
