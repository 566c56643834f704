"""Runs under Ray Train with DeepSpeed: what two workers come to, and a run that is finished.

What befalls drivers and workers is in `tests/faults`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bearray.config import override
from bearray.errors import ResourceError
from bearray.runs import Storage
from bearray.training.resources import check_resources
from bearray.training.trainer import Trained, train
from tests.training.workers import Job, Outcome, run_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
EPOCHS = 2


@pytest.fixture(scope="module")
def config(make_run) -> Any:
    """Two epochs under DeepSpeed."""
    return make_run(
        {
            "train.epochs": EPOCHS,
            "train.engine": "deepspeed",
            "train.num_workers": 2,
            "train.micro_batch_size": 4,
            "train.lr": 0.03,
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainer")


@pytest.fixture(scope="module")
def undisturbed(config, root) -> Outcome:
    """The same run in this process without Ray: what all others must come to."""
    plain = override(config, {"train.engine": "ddp", "train.num_workers": 1})
    return run_job(plain, Job("undisturbed", epochs=EPOCHS, save=True, validate=True), root)


@pytest.fixture(scope="module")
def pair(config, root, local_ray) -> tuple[Storage, Trained]:
    """Two workers, nothing happens."""
    folder = Storage(str(root / "pair"))
    return folder, train(config, folder)


def assert_equals(folder: Storage, trained: Trained, undisturbed: Outcome) -> None:
    """Every step and epoch once, with the undisturbed run's numbers; the best epoch's adapter kept."""
    rows = folder.read_lines("metrics.jsonl")
    steps = [r for r in rows if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(3 * EPOCHS))
    for ours, theirs in zip(steps, undisturbed.rows, strict=True):
        for name in ("epoch", "loss", "nll", "violation", "margin", "regularizer", "lr"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), (ours["step"], name)
    epochs = [r for r in rows if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == list(range(1, EPOCHS + 1))
    for row, valid in zip(epochs, undisturbed.valid, strict=True):
        assert {k: row[k] for k in valid} == pytest.approx(valid)
    scores = [valid["valid_ndcg@10"] for valid in undisturbed.valid]
    best = scores.index(max(scores))
    assert trained.best_epoch == best + 1
    assert trained.valid["ndcg@10"] == pytest.approx(scores[best])
    assert trained.valid["hr@10"] == pytest.approx(undisturbed.valid[best]["valid_hr@10"])
    assert trained.train_seconds > 0 and trained.valid_seconds > 0
    ours = load_file(Path(trained.checkpoint) / "adapter" / "adapter_model.safetensors")
    wanted = load_file(
        Path(folder.root).parent / "undisturbed" / str(best + 1) / "adapter" / "adapter_model.safetensors"
    )
    assert ours.keys() == wanted.keys()
    assert max(float((ours[name] - wanted[name]).abs().max()) for name in ours) < 1e-4


def test_two_workers_come_to_what_one_process_does(pair, undisturbed):
    assert_equals(*pair, undisturbed)


def test_a_finished_run_is_not_trained_again(config, pair):
    folder, trained = pair
    log = Path(folder.root) / "metrics.jsonl"
    before = log.read_bytes()
    again = train(override(config, {"train.num_workers": 1}), folder)  # what two have left, one can read
    assert again == trained
    assert log.read_bytes() == before


def test_more_workers_than_the_cluster_holds_are_refused(config, local_ray):
    check_resources(config)
    with pytest.raises(ResourceError, match=r"train\.num_workers=3 .* need 3 CPUs, but the cluster has 2"):
        check_resources(override(config, {"train.num_workers": 3}))
    with pytest.raises(ResourceError, match=r"need 2\.1 CPUs"):
        check_resources(config, driver_cpus=0.1)
