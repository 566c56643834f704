"""A whole sweep on a local Ray, what it leaves behind, and what a rerun does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bearray.config import override
from bearray.errors import ConfigError, MissingFileError, ResourceError, ResumeError, StorageError
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.sweep import check_sweep, run_sweep
from tests.conftest import MICRO_RUN


def micro_sweep(data: Path, base: Path, storage: Path) -> SweepConfig:
    changes = {"objective.name": "sdpo_bear", "objective.negatives": 2, "train.cpus_per_worker": 0.9}
    changes |= {"evaluation.exact_test": True}
    changes = {**MICRO_RUN, **changes, "train.epochs": 1}
    return SweepConfig(
        data_dir=str(data),
        storage=str(storage),
        base_model=(str(base),),
        methods=("sdpo_bear", "sft"),
        seeds=(42, 43),
        method_settings=("sdpo_bear:train.epochs=2",),
        search=SearchConfig(trials=2, methods=("sdpo_bear",)),
        run=override(SweepConfig().run, changes),
    )


@pytest.fixture
def sweep(demo_dir: Path, micro_base: Path, tmp_path: Path) -> SweepConfig:
    return micro_sweep(demo_dir, micro_base, tmp_path / "storage")


def test_data_that_is_not_there(sweep: SweepConfig) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        check_sweep(dataclasses.replace(sweep, data_dir="nowhere"))


def test_storage_that_cannot_be_written(sweep: SweepConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        check_sweep(dataclasses.replace(sweep, storage=str(tmp_path / "file" / "below")))


@pytest.mark.parametrize("name", ["data_dir", "storage"])
def test_places_must_be_given(sweep: SweepConfig, name: str) -> None:
    with pytest.raises(ConfigError, match=name.replace("_", ".")):
        check_sweep(dataclasses.replace(sweep, **{name: ""}))


def test_there_is_one_way_to_name_data_and_model(sweep: SweepConfig) -> None:
    changed = dataclasses.replace(sweep, run=override(sweep.run, {"data.path": "elsewhere"}))
    with pytest.raises(ConfigError, match="--data-dir"):
        check_sweep(changed)


@pytest.fixture(scope="module")
def finished_sweep(
    demo_dir: Path, micro_base: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> Iterator[tuple[SweepConfig, Path]]:
    storage = tmp_path_factory.mktemp("sweep")
    sweep = micro_sweep(demo_dir, micro_base, storage)
    run_sweep(sweep)
    yield sweep, storage


def _settings(storage: Path) -> dict[str, dict[str, Any]]:
    files = sorted(storage.glob("runs/*/config.json"))
    return {f.parent.name: json.loads(f.read_text())["run"] for f in files}


def _results(storage: Path) -> dict[str, dict[str, Any]]:
    return {f.parent.name: json.loads(f.read_text()) for f in sorted(storage.glob("runs/*/result.json"))}


@pytest.mark.ray
@pytest.mark.slow
class TestSweep:
    def test_every_run_ended_and_one_of_each_method_and_seed_was_tested(self, finished_sweep: Any) -> None:
        _, storage = finished_sweep
        results, settings = _results(storage), _settings(storage)
        assert len(results) == 2 + 3  # two seeds of SFT; two trials and another seed of S-DPO with BEAR
        assert {r["status"] for r in results.values()} == {"finished"}
        chosen = {name for name, r in results.items() if r["chosen"]}
        tested = sorted((settings[n]["objective"]["name"], settings[n]["train"]["seed"]) for n in chosen)
        assert tested == [(m, s) for m in ("sdpo_bear", "sft") for s in (42, 43)]
        assert all("test" not in r for name, r in results.items() if name not in chosen)

    def test_the_best_trial_is_trained_again_with_the_other_seed(self, finished_sweep: Any) -> None:
        _, storage = finished_sweep
        results, settings = _results(storage), _settings(storage)
        bear = {name: settings[name] for name in results if name.startswith("sdpo_bear")}
        first = {name for name, run in bear.items() if run["train"]["seed"] == 42}
        (again,) = set(bear) - first
        (best,) = (name for name in first if results[name]["chosen"])
        assert results[best]["valid"]["ndcg@10"] == max(results[n]["valid"]["ndcg@10"] for n in first)
        assert bear[again]["objective"] == bear[best]["objective"]

    def test_preference_runs_start_from_sft_of_their_seed(self, finished_sweep: Any) -> None:
        _, storage = finished_sweep
        settings = _settings(storage)
        for name, run in settings.items():
            preference = name.startswith("sdpo_bear")
            assert run["train"]["epochs"] == (2 if preference else 1)
            assert (run["train"]["init_adapter"] is not None) == preference
            if preference:
                sft = run["train"]["init_adapter"].removeprefix("run:")
                assert settings[sft]["objective"]["name"] == "sft"
                assert settings[sft]["train"]["seed"] == run["train"]["seed"]
                rows = [json.loads(x) for x in (storage / "runs" / name / "metrics.jsonl").open()]
                assert rows[0]["reward_margin"] == pytest.approx(0, abs=1e-5)  # the reference is the start

    def test_every_decoding_counts_every_test_case(self, finished_sweep: Any) -> None:
        _, storage = finished_sweep
        for name, result in _results(storage).items():
            if not result["chosen"]:
                continue
            folders = {"trie": "predictions", "full": "predictions_full", "exact": "predictions_exact"}
            assert set(result["test"]) == set(folders) and result["test"]["exact"]["proven"] == 1
            assert set(result["seconds"]["decoding"]) == set(folders)
            for normalize, folder in folders.items():
                shards = sorted((storage / "runs" / name / folder).glob("*.parquet"))
                frame = pd.concat([pd.read_parquet(s) for s in shards])
                assert frame["row"].tolist() == list(range(MICRO_RUN["data.test_windows"]))
                measured = result["test"][normalize]["all"]
                assert measured["n"] == len(frame)
                assert measured["hr@10"]["mean"] == pytest.approx((frame["rank"] < 10).mean())

    def test_the_sweep_leaves_journal_tensorboard_and_report(self, finished_sweep: Any) -> None:
        _, storage = finished_sweep
        assert list(storage.glob("optuna/sdpo_bear-*.log"))
        assert list(storage.glob("tune/**/events.out.tfevents*"))
        page = (storage / "report" / "index.html").read_text()
        assert "BEAR" in page and "stand-in" in page
        about = json.loads((storage / "sweep.json").read_text())
        assert any("train.epochs" in line for line in about["departures"])

    def test_a_rerun_trains_and_decodes_nothing(self, finished_sweep: Any) -> None:
        sweep, storage = finished_sweep
        before = {f: f.stat().st_mtime_ns for f in storage.glob("runs/**/*") if f.is_file()}
        run_sweep(sweep)
        after = {f: f.stat().st_mtime_ns for f in storage.glob("runs/**/*") if f.is_file()}
        assert before == after

    def test_a_rerun_decodes_a_lost_shard_only(self, finished_sweep: Any) -> None:
        sweep, storage = finished_sweep
        chosen = next(name for name, r in _results(storage).items() if r["chosen"])
        folder = storage / "runs" / chosen
        result = json.loads((folder / "result.json").read_text())
        shard = folder / "predictions" / "part-00001.parquet"
        kept = folder / "predictions" / "part-00000.parquet"
        old, stamp = pd.read_parquet(shard), kept.stat().st_mtime_ns
        shard.write_bytes(shard.read_bytes()[:50])
        untested = {k: v for k, v in result.items() if k != "test"}
        (folder / "result.json").write_text(json.dumps(untested))
        run_sweep(sweep)
        pd.testing.assert_frame_equal(pd.read_parquet(shard), old)
        assert kept.stat().st_mtime_ns == stamp
        assert json.loads((folder / "result.json").read_text())["test"] == result["test"]

    def test_changed_settings_are_refused_and_harmless_ones_are_not(self, finished_sweep: Any) -> None:
        sweep, _ = finished_sweep
        changed = dataclasses.replace(sweep, run=override(sweep.run, {"train.lr": 0.5}))
        with pytest.raises(ResumeError, match=r"train\.lr: 0\.01 -> 0\.5"):
            check_sweep(changed)
        check_sweep(dataclasses.replace(sweep, run=override(sweep.run, {"evaluation.actors": 2})))

    def test_more_workers_than_the_cluster_has(self, finished_sweep: Any, tmp_path: Path) -> None:
        sweep, _ = finished_sweep
        greedy = dataclasses.replace(
            sweep, storage=str(tmp_path), run=override(sweep.run, {"train.num_workers": 7})
        )
        with pytest.raises(ResourceError, match=r"num_workers=7.*cluster has 2"):
            run_sweep(greedy)
        assert not (tmp_path / "runs").exists()
