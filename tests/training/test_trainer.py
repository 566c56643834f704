"""Runs under Ray Train: any number of workers, finished runs, stopped drivers, killed workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from safetensors.torch import load_file

from bearray.config import from_dict, override, to_dict
from bearray.errors import ResourceError
from bearray.runs import Storage
from bearray.training.resources import check_resources
from bearray.training.trainer import Trained, train
from tests.conftest import start_ray
from tests.training.workers import Job, Outcome, run_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
EPOCHS = 4


@pytest.fixture(scope="module")
def config(make_run) -> Any:
    """Four epochs under DeepSpeed that take long enough to be interrupted."""
    return make_run(
        {
            "train.epochs": EPOCHS,
            "train.engine": "deepspeed",
            "train.num_workers": 2,
            "train.micro_batch_size": 4,
            "train.lr": 0.03,
            "decoding.batch_size": 1,
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


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} in {seconds:g} seconds"
        time.sleep(0.05)


def epochs_done(folder: Storage) -> int:
    return sum(row["kind"] == "epoch" for row in folder.read_lines("metrics.jsonl"))


def checkpoint_recorded(folder: Storage) -> bool:
    """Ray has written down a checkpoint to continue from; it polls its workers for them every two seconds."""
    snapshot = Path(folder.root) / "checkpoints" / "checkpoint_manager_snapshot.json"
    return snapshot.exists() and snapshot.stat().st_size > 0


def train_workers() -> list[psutil.Process]:
    """The training workers of the cluster that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def in_background(config: Any, folder: Storage) -> tuple[Any, Any]:
    """`train` in an actor, as Tune runs it in a trial's driver: the actor, and what it will return."""

    @ray.remote(num_cpus=0)
    class Driver:
        def train(self, values: dict[str, Any], place: str) -> Trained:
            from bearray.config import RunConfig

            return train(from_dict(RunConfig, values), Storage(place))

    driver = Driver.remote()
    return driver, driver.train.remote(to_dict(config), folder.root)


def test_two_workers_come_to_what_one_process_does(pair, undisturbed):
    assert_equals(*pair, undisturbed)


def test_one_worker_too(config, root, undisturbed, local_ray):
    folder = Storage(str(root / "one"))
    assert_equals(folder, train(override(config, {"train.num_workers": 1}), folder), undisturbed)


def test_a_finished_run_is_not_trained_again(config, pair):
    folder, trained = pair
    log = Path(folder.root) / "metrics.jsonl"
    before = log.read_bytes()
    again = train(config, folder)
    assert again == trained
    assert log.read_bytes() == before


def test_a_run_whose_driver_was_stopped_continues_from_its_checkpoint(config, root, undisturbed, local_ray):
    folder = Storage(str(root / "stopped"))
    driver, running = in_background(config, folder)
    wait_for(lambda: epochs_done(folder) >= 1 and checkpoint_recorded(folder), "checkpoint")
    ray.kill(driver)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(running)
    wait_for(lambda: not train_workers(), "end of the stopped run's workers")
    assert epochs_done(folder) < EPOCHS
    kept = {row["step"]: row for row in folder.read_lines("metrics.jsonl") if row["kind"] == "step"}
    # The command is given again, in a job of its own. Within one job Ray 2.60 can lose a stopped run's CPUs:
    # a controller that starts its workers anew while it is stopped leaves their placement group behind.
    ray.shutdown()
    start_ray()
    trained = train(config, folder)
    assert_equals(folder, trained, undisturbed)
    rows = {row["step"]: row for row in folder.read_lines("metrics.jsonl") if row["kind"] == "step"}
    assert rows[0] == kept[0]  # its speed included: the first epoch was not trained again


def test_a_killed_worker_costs_no_result(config, root, undisturbed, local_ray):
    folder = Storage(str(root / "killed"))
    _, running = in_background(config, folder)
    wait_for(lambda: epochs_done(folder) >= 1 and checkpoint_recorded(folder), "checkpoint")
    workers = train_workers()
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    assert epochs_done(folder) < EPOCHS
    assert_equals(folder, ray.get(running, timeout=400), undisturbed)


def test_more_workers_than_the_cluster_holds_are_refused(config, local_ray):
    check_resources(config)
    with pytest.raises(ResourceError, match=r"train\.num_workers=3 .* need 3 CPUs, but the cluster has 2"):
        check_resources(override(config, {"train.num_workers": 3}))
    with pytest.raises(ResourceError, match=r"need 2\.1 CPUs"):
        check_resources(config, driver_cpus=0.1)
