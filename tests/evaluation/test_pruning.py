"""The pruning analysis of a split: sampled, sharded and resumed, with the rows of one process."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

from bearray.backbones.load import load_model
from bearray.backbones.lora import load_adapter
from bearray.commands.pruning import pruning
from bearray.config import override, to_dict
from bearray.data import open_dataset
from bearray.errors import ConfigError, ModelError, ResumeError
from bearray.evaluation.pruning import (
    SCHEMA,
    Analysis,
    begin_measuring,
    forget,
    measure_split,
    measurements_in,
    sample_rows,
    to_table,
)
from bearray.evaluation.shards import write_shard
from bearray.pruning import COLUMNS, measure, summarize
from bearray.runs import Storage
from bearray.task import load_task
from bearray.trained import TrainedRun
from tests.training.workers import Job, run_job

WINDOWS, WIDTHS = 7, (2, 20)


@pytest.fixture(scope="module")
def config(make_run: Any) -> Any:
    return make_run({"decoding.beam_width": 5, "train.lr": 0.05})


@pytest.fixture
def run(config: Any, tmp_path: Path) -> TrainedRun:
    """A run as it would be read from storage."""
    return TrainedRun(
        folder=Storage(str(tmp_path / "msl-1")),
        config=config,
        checkpoint="none",
        method="MSL",
        dataset="demo",
        base_model="micro",
        data_hash=open_dataset(config.data.path).content_hash,
    )


def test_a_sample_is_in_order_and_part_of_a_larger_one() -> None:
    samples = [sample_rows(50, n, seed=3) for n in (1, 7, 20, 49)]
    for small, large in pairwise(samples):
        assert set(small) < set(large)
    for n, sample in zip((1, 7, 20, 49), samples, strict=True):
        assert sample == sorted(set(sample)) and len(sample) == n and set(sample) <= set(range(50))
    assert sample_rows(50, 7, seed=4) != samples[1]
    assert samples[1] != list(range(7))  # not the oldest windows
    assert sample_rows(5, None, 0) == sample_rows(5, 5, 0) == sample_rows(5, 9, 0) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="windows is 0"):
        sample_rows(5, 0, 0)


def rows(n: int) -> pd.DataFrame:
    """Rows as `measure` returns them, with every kind of special value."""
    return pd.DataFrame(
        {
            "row": range(n),
            "user_id": [r // 2 for r in range(n)],
            "target": [5] * n,
            "warm": [True] * n,
            "target_score": [-1.5] * n,
            "steps": [4] * n,
            "branching": [2] * n,
            "violations": [1] * n,
            "first_violation": [2] * n,
            "rank": [float(r) for r in range(n)],
            "rank_proven": [r != 1 for r in range(n)],
            "beam_rank": [math.inf if r % 2 else 0.0 for r in range(n)],
            "beam_proven": [False] * n,
            "cut_step": [2 * (r % 2) for r in range(n)],
            "cut_gap": [0.25 if r % 2 else math.nan for r in range(n)],
            "cut_violates": [bool(r % 2) for r in range(n)],
            "pool_rank": [float(r) for r in range(n)],
            "width_ranks": [[math.inf, 1.0] for _ in range(n)],
            "exact_rank": [1.0] * n,
            "exact_proven": [True] * n,
            "expanded": [[1, 2, 3, 4]] * n,
            "seconds": [[0.1, 0.2, 0.3, 0.4]] * n,
        }
    )


def test_rows_come_back_from_a_table_as_they_were() -> None:
    frame = rows(4)
    table = to_table(frame[list(reversed(frame.columns))])
    assert tuple(table.schema.names) == COLUMNS and table.schema == SCHEMA
    assert all(column.null_count == 0 for column in table.columns)
    pd.testing.assert_frame_equal(table.to_pandas(), frame, check_dtype=False)


def test_folders_say_what_is_not_the_usual(run: TrainedRun) -> None:
    names = {
        "pruning": Analysis(),
        "pruning_full": Analysis(normalize="full"),
        "pruning_valid": Analysis(split="valid", normalize="trie"),
        "pruning_full_valid": Analysis(split="valid", normalize="full"),
    }
    assert {name: analysis.folder(run).root for name, analysis in names.items()} == {
        name: f"{run.folder.root}/{name}" for name in names
    }


def test_settings_are_checked_before_a_cluster_is_needed(run: TrainedRun, tmp_path: Path) -> None:
    settings = Analysis(normalize="full").settings(run)
    assert settings == override(run.config, {"decoding.normalize": "full"})
    for unusual in ({"length_penalty": 1.0, "exclude_history": True}, {"method": "greedy"}):
        changed = override(run.config, {f"decoding.{name}": value for name, value in unusual.items()})
        other = dataclasses.replace(run, config=changed)
        assert Analysis().settings(other) == run.config  # by probability, plain beam search over all titles
    with pytest.raises(ConfigError, match="widths: 0"):
        Analysis(widths=(20, 0)).settings(run)
    with pytest.raises(ConfigError, match="node_budget: -1"):
        Analysis(node_budget=-1).settings(run)
    with pytest.raises(ConfigError, match="windows is -3"):
        Analysis(windows=-3).settings(run)
    with pytest.raises(ModelError, match="moved"):
        Analysis().settings(run, base_model=str(tmp_path / "moved"))
    with_penalty = override(run.config, {"decoding.length_penalty": 1.0})
    with pytest.raises(ConfigError, match="length_penalty is 1"):
        measure_split(with_penalty, None, Storage(str(tmp_path)))


def test_an_analysis_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "pruning"
    folder.mkdir()
    mine = ["notes.txt", "part-mine.csv"]
    for name in [*mine, "part-00000.parquet", "part-00012.parquet", "summary.json"]:
        (folder / name).write_text("x")
    forget(Storage(str(folder)))
    assert len(list(folder.iterdir())) == 5  # without a manifest it is not ours
    (folder / "manifest.json").write_text("{}")
    forget(Storage(str(folder)))
    assert sorted(f.name for f in folder.iterdir()) == mine


def in_process(config: Any, checkpoint: str | None, wanted: list[int]) -> pd.DataFrame:
    """The rows of one process, adapter not merged, no shards."""
    task = load_task(config)
    model: Any = load_model(config.model.base, device="cpu")
    if checkpoint is not None:
        model = load_adapter(model, Path(checkpoint) / "adapter")
    return measure(
        model.eval(),
        task.cases("test", wanted),
        task.catalog.trie,
        config.decoding,
        widths=WIDTHS,
        node_budget=None,
        pad_token_id=task.pad_token_id,
        device="cpu",
    )


def assert_same_rows(frame: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal but for times, and scores as equal as they are with the adapter merged into the weights."""
    pd.testing.assert_frame_equal(
        frame.drop(columns="seconds"),
        to_table(expected).to_pandas().drop(columns="seconds"),
        rtol=1e-4,
        atol=1e-5,
    )
    assert all(len(times) == len(WIDTHS) + 2 and min(times) >= 0 for times in frame["seconds"])


@pytest.fixture(scope="module")
def checkpoint(config: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter after a few steps, which changes what is recommended."""
    folder = tmp_path_factory.mktemp("trained")
    run_job(config, Job("run", save=True), folder)
    return str(folder / "run" / "1")


@pytest.fixture(scope="module")
def measured(
    config: Any, checkpoint: str, local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pd.DataFrame, list[tuple[int, int]]]:
    folder = tmp_path_factory.mktemp("run") / "pruning"
    told: list[tuple[int, int]] = []
    frame = measure_split(
        config,
        checkpoint,
        Storage(str(folder)),
        windows=WINDOWS,
        widths=WIDTHS,
        on_shard=lambda *done: told.append(done),
    )
    return folder, frame, told


@pytest.fixture
def run_folder(config: Any, tmp_path: Path) -> Path:
    """A finished run in a storage folder; its checkpoint is empty."""
    folder = tmp_path / "runs" / "bear-1"
    (folder / "checkpoints" / "checkpoint_1").mkdir(parents=True)
    about = {"run": to_dict(config), "method": "BEAR", "dataset": "demo", "base_model": "micro"}
    about["data_hash"] = open_dataset(config.data.path).content_hash
    (folder / "config.json").write_text(json.dumps(about))
    ended = {"status": "finished", "checkpoint": "/moved/checkpoints/checkpoint_1", "chosen": True}
    (folder / "result.json").write_text(json.dumps(ended))
    return folder


def test_a_finished_analysis_is_told_again_without_a_cluster(
    config: Any, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Storage(str(run_folder / "pruning"))
    table = begin_measuring(config, "checkpoint_1", folder, windows=3, widths=WIDTHS)
    write_shard(folder, 0, to_table(in_process(config, None, list(table.rows))))
    pruning((str(tmp_path),), windows=3, widths=WIDTHS)
    assert not ray.is_initialized()
    out = " ".join(capsys.readouterr().out.split())
    content = json.loads((run_folder / "pruning" / "summary.json").read_text())
    assert content["summary"] == summarize(table.read(), beam_width=5, widths=WIDTHS)
    assert content["settings"]["rows"] == 3 and content["settings"]["of"] == 11
    for words in ("BEAR on demo, micro (bear-1)", "3 test cases", "PR@5: exact", "NDCG@10", str(run_folder)):
        assert words in out, words
    methods = [line.split()[:2] for line in out.split("ms/user")[1].split("beam")][1:]
    assert [m[0] for m in methods] == ["5", "2", "20"]


def test_other_settings_are_refused_before_a_cluster_is_needed(config: Any, run_folder: Path) -> None:
    begin_measuring(config, "checkpoint_1", Storage(str(run_folder / "pruning")), windows=3)
    with pytest.raises(ResumeError, match="rows: 3 -> 4"):
        pruning((str(run_folder),), windows=4)
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
class TestOnRay:
    def test_actors_measure_what_one_process_does(self, config: Any, checkpoint: str, measured: Any) -> None:
        folder, frame, told = measured
        wanted = sample_rows(11, WINDOWS, config.data.sample_seed)
        assert frame["row"].tolist() == wanted and len(wanted) == WINDOWS
        assert told == [(1, 2), (2, 2)]  # shards of four
        assert_same_rows(frame, in_process(config, checkpoint, wanted))
        pd.testing.assert_frame_equal(measurements_in(Storage(str(folder))), frame)
        bare = in_process(config, None, wanted)
        assert not np.allclose(frame["target_score"], bare["target_score"], rtol=1e-3)

    def test_a_rerun_measures_the_lost_shard_only(self, config: Any, checkpoint: str, measured: Any) -> None:
        folder, frame, _ = measured
        kept, lost = (folder / f"part-0000{n}.parquet" for n in (0, 1))
        stamp = kept.stat().st_mtime_ns
        lost.unlink()
        again = measure_split(config, checkpoint, Storage(str(folder)), windows=WINDOWS, widths=WIDTHS)
        timeless = again.drop(columns="seconds")
        pd.testing.assert_frame_equal(timeless, frame.drop(columns="seconds"))
        assert kept.stat().st_mtime_ns == stamp and lost.exists()

    def test_other_settings_are_refused(self, config: Any, checkpoint: str, measured: Any) -> None:
        folder = Storage(str(measured[0]))
        same = {"windows": WINDOWS, "widths": WIDTHS}
        for changes, message in (
            ({"windows": 5}, "rows: 7 -> 5"),
            ({"widths": (2,)}, "widths"),
            ({"node_budget": 3}, "node_budget: None -> 3"),
            ({"split": "valid", "windows": None}, "of: 11 -> 29.*split"),
        ):
            with pytest.raises(ResumeError, match=message):
                measure_split(config, checkpoint, folder, **{**same, **changes})
        with pytest.raises(ResumeError, match="checkpoint"):
            measure_split(config, None, folder, **same)
        with pytest.raises(ResumeError, match="config"):
            measure_split(override(config, {"train.seed": 1}), checkpoint, folder, **same)

    def test_the_command_measures_prints_and_continues(
        self,
        checkpoint: str,
        measured: Any,
        run_folder: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        run = run_folder
        (run / "checkpoints" / "checkpoint_1").rmdir()
        (run / "checkpoints" / "checkpoint_1").symlink_to(checkpoint)
        pruning((str(tmp_path),), windows=WINDOWS, widths=WIDTHS, actors=1)
        out = " ".join(capsys.readouterr().out.split())
        content = json.loads((run / "pruning" / "summary.json").read_text())
        frame = measurements_in(Storage(str(run / "pruning")))
        assert content["summary"] == summarize(frame, beam_width=5, widths=WIDTHS)
        pd.testing.assert_frame_equal(
            frame.drop(columns="seconds"), measured[1].drop(columns="seconds"), rtol=1e-6
        )
        for words in (
            "BEAR on demo, micro (bear-1)",
            "7 test cases",
            "PR@5: exact",
            "PR@10: exact",
            "beam 5",
            "beam 20",
            "NDCG@10",
            "ms/user",
            f"{run}/pruning",
        ):
            assert words in out, words
        stamps = [f.stat().st_mtime_ns for f in sorted((run / "pruning").glob("part-*"))]
        pruning((str(run),), windows=WINDOWS, widths=WIDTHS)
        assert [f.stat().st_mtime_ns for f in sorted((run / "pruning").glob("part-*"))] == stamps
        with pytest.raises(ResumeError, match="rows: 7 -> 3"):
            pruning((str(run),), windows=3, widths=WIDTHS)
        pruning((str(run),), windows=3, widths=WIDTHS, restart=True)
        assert json.loads((run / "pruning" / "summary.json").read_text())["summary"]["n"] == 3
