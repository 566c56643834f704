"""Sharded decoding on a local Ray: the answers of one process, whatever was lost on the way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bearray.backbones.load import load_model
from bearray.backbones.lora import load_adapter
from bearray.batching import left_pad
from bearray.config import override
from bearray.decoding import constrained_beam_search
from bearray.errors import ResourceError, ResumeError
from bearray.evaluation import decode_split, evaluate_run
from bearray.evaluation.pool import pool_size
from bearray.runs import Storage
from bearray.task import load_task
from tests.training.workers import Job, run_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
SHARDS, WINDOWS = 3, 29


@pytest.fixture(scope="module")
def config(make_run) -> Any:
    """All 29 test windows in shards of 10; lists of 20 of the 63 titles, so that some targets are in them."""
    return make_run(
        {
            "data.test_windows": None,
            "decoding.beam_width": 20,
            "evaluation.actors": 2,
            "evaluation.shard_size": 10,
            "train.lr": 0.05,
        }
    )


@pytest.fixture(scope="module")
def checkpoint(config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter after a few steps, which changes what is recommended."""
    folder = tmp_path_factory.mktemp("trained")
    run_job(config, Job("run", save=True), folder)
    return str(folder / "run" / "1")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("run")))


def decode(config: Any, checkpoint: str | None, folder: Storage, **options: Any) -> pd.DataFrame:
    """The test split under one normaliser."""
    return decode_split(config, checkpoint, {"trie": folder}, **options)["trie"]


@pytest.fixture(scope="module")
def decoded(config, checkpoint, run_folder, local_ray) -> tuple[pd.DataFrame, list[tuple[int, int]]]:
    """All test windows decoded by two actors, and the progress that was told."""
    told: list[tuple[int, int]] = []
    frame = decode(
        config, checkpoint, run_folder.child("predictions"), on_shard=lambda *done: told.append(done)
    )
    return frame, told


def expected(
    config: Any, checkpoint: str | None, normalize: str, penalty: float = 0.0
) -> list[tuple[list[int], list[float]]]:
    """Items and scores of each test window, one window at a time, adapter not merged, no shards."""
    task = load_task(config)
    model: Any = load_model(config.model.base, device="cpu")
    if checkpoint is not None:
        model = load_adapter(model, Path(checkpoint) / "adapter")
    answers = []
    for case in task.cases("test"):
        ids, mask = left_pad([case.prompt], task.pad_token_id)
        found = constrained_beam_search(
            model.eval(),
            ids,
            mask,
            task.catalog.trie,
            beam_width=config.decoding.beam_width,
            normalize=normalize,
            length_penalty=penalty,
        )
        titles = [task.catalog.tokens.index(tokens) for tokens in found.sequences[0]]
        answers.append(([min(task.catalog.items_of_title[t]) for t in titles], found.scores[0].tolist()))
    return answers


def assert_answers(frame: pd.DataFrame, answers: list[tuple[list[int], list[float]]]) -> None:
    assert frame["row"].tolist() == list(range(len(answers)))
    for (_, row), (items, scores) in zip(frame.iterrows(), answers, strict=True):
        np.testing.assert_allclose(row["scores"], scores, rtol=1e-4, atol=1e-5)
        assert list(row["items"]) == items


def test_actors_recommend_what_one_process_does(config, checkpoint, decoded):
    frame, told = decoded
    assert len(frame) == WINDOWS
    assert_answers(frame, expected(config, checkpoint, "trie"))
    assert told == [(1, SHARDS), (2, SHARDS), (3, SHARDS)]


def test_predictions_are_of_the_test_windows(config, decoded):
    frame, _ = decoded
    task = load_task(config)
    windows = task.windows("test")
    assert frame["user_id"].tolist() == windows["user_id"].tolist()
    assert frame["target"].tolist() == [int(items[-1]) for items in windows["item_ids"]]
    seen = {int(i) for items in task.dataset.train["item_ids"] for i in items}
    assert frame["warm"].tolist() == [target in seen for target in frame["target"]]
    titles = task.catalog.title_of_item
    for _, row in frame.iterrows():
        places = [titles[i] for i in row["items"] if i != -1]
        wanted = titles[row["target"]]
        assert row["rank"] == (places.index(wanted) if wanted in places else math.inf)
    assert np.isfinite(frame["rank"]).any()


def test_a_rerun_decodes_what_is_missing_and_nothing_else(config, checkpoint, run_folder, decoded):
    frame, _ = decoded
    folder = Path(run_folder.root) / "predictions"
    shards = [folder / f"part-{n:05d}.parquet" for n in range(SHARDS)]
    before = [shard.stat().st_mtime_ns for shard in shards]
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:300])
    told: list[tuple[int, int]] = []
    again = decode(config, checkpoint, Storage(str(folder)), on_shard=lambda *done: told.append(done))
    pd.testing.assert_frame_equal(again, frame)
    assert told == [(2, SHARDS), (3, SHARDS)]
    after = [shard.stat().st_mtime_ns for shard in shards]
    assert after[0] == before[0] and after[1] > before[1] and after[2] > before[2]
    pd.testing.assert_frame_equal(decode(config, checkpoint, Storage(str(folder))), frame)
    assert [shard.stat().st_mtime_ns for shard in shards] == after


def test_metrics_are_those_of_a_naive_count(config, checkpoint, run_folder, decoded):
    frame, _ = decoded
    before = (Path(run_folder.root) / "predictions" / "part-00000.parquet").stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    penalised = override(config, {"evaluation.also_length_penalty": True})
    result = evaluate_run(penalised, checkpoint, run_folder, on_shard=lambda *done: told.append(done))
    assert (Path(run_folder.root) / "predictions" / "part-00000.parquet").stat().st_mtime_ns == before
    total = 4 * SHARDS
    assert told == [(done, total) for done in range(SHARDS + 1, total + 1)]  # all but the run's own
    names = {"trie", "full", "trie_lp1", "full_lp1"}
    assert result["seconds"]["test"] > 0 and set(result["seconds"]["decoding"]) == names
    assert set(result["test"]) == names
    for name in ("trie", "full"):
        by_length = decode_split(
            penalised, checkpoint, {f"{name}_lp1": run_folder.child(f"predictions_{name}_lp1")}
        )
        assert_answers(by_length[f"{name}_lp1"], expected(config, checkpoint, name, 1.0))
    full = decode_split(config, checkpoint, {"full": run_folder.child("predictions_full")})["full"]
    assert_answers(full, expected(config, checkpoint, "full"))
    for name, predictions in (("trie", frame), ("full", full)):
        for group, rows in {
            "all": [True] * WINDOWS,
            "warm": predictions["warm"].tolist(),
            "cold": (~predictions["warm"]).tolist(),
        }.items():
            ranks = predictions["rank"][rows].tolist()
            table = result["test"][name][group]
            assert table["n"] == len(ranks)
            assert table["users"] == predictions["user_id"][rows].nunique()
            for k in (1, 5, 10) if ranks else ():
                hits = sum(rank < k for rank in ranks) / len(ranks)
                gain = sum(1 / math.log2(rank + 2) for rank in ranks if rank < k) / len(ranks)
                assert table[f"hr@{k}"]["mean"] == pytest.approx(hits)
                assert table[f"ndcg@{k}"]["mean"] == pytest.approx(gain)
                assert table[f"hr@{k}"]["low"] <= hits <= table[f"hr@{k}"]["high"]
    assert (frame["scores"].map(list) != full["scores"].map(list)).all()


def test_the_bare_base_model_is_decoded_too(config, decoded, tmp_path):
    one = override(config, {"evaluation.actors": 1, "data.test_windows": 4})
    frame = decode(one, None, Storage(str(tmp_path)))
    assert_answers(frame, expected(one, None, "trie"))
    trained = decoded[0]
    assert set(frame.columns) == set(trained.columns)


def test_predictions_of_another_model_are_not_continued(config, checkpoint, run_folder, decoded):
    folder = run_folder.child("predictions")
    with pytest.raises(ResumeError, match="checkpoint"):
        decode(config, None, folder)
    with pytest.raises(ResumeError, match="decoding"):
        decode(override(config, {"decoding.beam_width": 5}), checkpoint, folder)
    with pytest.raises(ResumeError, match="config"):
        decode(override(config, {"train.seed": 1}), checkpoint, folder)


def test_more_actors_than_the_cluster_holds_are_refused(config, local_ray):
    with pytest.raises(ResourceError, match=r"evaluation\.actors is 3, but the cluster has room for 2"):
        pool_size(override(config, {"evaluation.actors": 3}), 9)
    with pytest.raises(ResourceError, match=r"cpus_per_actor is 4, but the cluster has 2 CPUs"):
        pool_size(override(config, {"evaluation.actors": None, "evaluation.cpus_per_actor": 4.0}), 9)
    assert pool_size(override(config, {"evaluation.actors": None}), 9) == (2, 2)
    assert pool_size(config, 1) == (1, 1)
