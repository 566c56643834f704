"""Several nodes, by Ray's own fake cluster: where workers run, what comes back, who waits for what."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.cluster_utils import Cluster
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bearray.config import RunConfig, override
from bearray.runs import Storage
from bearray.training.capacity import NODE_TYPES, cluster_capacity
from bearray.training.resources import scaling_config, uses_gpu
from bearray.training.written import SCORE
from bearray.tuning.cluster import START_TIMEOUT, concurrent_trials, connect
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.search import run_search
from bearray.tuning.stages import choose
from bearray.tuning.trial import RunPlan
from bearray.tuning.waiting import Waiting

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head of 1 CPU for drivers and two nodes of 2 CPUs, connected to as a job's driver is."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    for _ in range(2):
        made.add_node(num_cpus=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", made.address)
        connect()
        yield made
    ray.shutdown()
    made.shutdown()


def run(**changes: Any) -> RunConfig:
    return override(RunConfig(), {f"train.{name}": value for name, value in changes.items()})


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} in {seconds:g} seconds"
        time.sleep(0.2)


def _note_node(settings: dict[str, str]) -> None:
    node = ray.get_runtime_context().get_node_id()
    Path(settings["folder"], f"{ray.train.get_context().get_world_rank()}").write_text(node)


def nodes_of(config: RunConfig, folder: Path, *, gpu: bool = False) -> list[str]:
    """The node that each worker of a run was on."""
    folder.mkdir()
    TorchTrainer(
        _note_node,
        torch_config=TorchConfig(backend="gloo"),
        train_loop_config={"folder": str(folder)},
        scaling_config=scaling_config(config.train, gpu),
        run_config=ray.train.RunConfig(name="state", storage_path=str(folder / "ray")),
    ).fit()
    return [(folder / str(rank)).read_text() for rank in range(config.train.num_workers)]


def test_a_jobs_driver_and_a_worker_are_connected_to_their_own_cluster(cluster: Cluster) -> None:
    assert ray.get_runtime_context().gcs_address == cluster.address
    assert cluster_capacity().now("CPU") == 5

    @ray.remote(num_cpus=0)
    def again() -> str:
        connect()
        return str(ray.get_runtime_context().gcs_address)

    assert ray.get(again.remote()) == cluster.address


def test_workers_run_where_placement_says(cluster: Cluster, tmp_path: Path) -> None:
    packed = nodes_of(run(num_workers=2, placement="strict_pack"), tmp_path / "packed")
    assert len(set(packed)) == 1
    spread = nodes_of(run(num_workers=2, placement="strict_spread"), tmp_path / "spread")
    assert len(set(spread)) == 2
    across = nodes_of(run(num_workers=4), tmp_path / "across")  # more than a node holds
    assert len(set(across)) >= 2
    assert concurrent_trials([run(num_workers=2, placement="strict_pack")]) == 2
    assert concurrent_trials([run(num_workers=3)]) == 1


def tensorboard_steps(folder: Path) -> list[int]:
    """The epochs for which TensorBoard has a trial's validation NDCG@10."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tag = f"ray/tune/{SCORE.replace('@', '_')}"  # TensorBoard allows no @
    return [event.step for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


class _StopFirst(FIFOScheduler):
    """In ASHA's place: stops the first two trials at their first epoch, whatever their scores."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.trial_id not in self.seen:
            self.seen.append(trial.trial_id)
        stop = self.seen.index(trial.trial_id) < 2 and "run_id" not in result
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


def test_stopped_trials_give_everything_back(
    cluster: Cluster, make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three trials with room for one: the next can start only once a stopped one's workers are gone."""
    config = make_run({"train.epochs": 6, "train.cpus_per_worker": 1.9, "train.num_workers": 2})
    plan = RunPlan(
        config=config, role="trial", method="BEAR", dataset="demo", base_model="micro",
        base_model_kind="local stand-in", data_hash="abc",
    )  # fmt: skip
    assert concurrent_trials([config]) == 1
    monkeypatch.setattr("bearray.tuning.search.EpochASHA", _StopFirst)
    storage = Storage(str(tmp_path / "storage"))
    search = SearchConfig(trials=3, early_stopping="asha", grace_epochs=1)
    axes = SweepConfig(search=search).axes("bear")
    run_search(plan, "bear", search, axes, storage, tmp_path / "journal.log")
    results = [storage.child("runs", name) for name in storage.names("runs")]
    by_status = {folder.read_json("result.json")["status"]: folder for folder in results}
    statuses = sorted(folder.read_json("result.json")["status"] for folder in results)
    assert statuses == ["finished", "stopped", "stopped"]
    assert choose(results) == by_status["finished"]
    assert by_status["stopped"].read_json("result.json")["best_epoch"] == 1
    total = ray.cluster_resources()["CPU"]
    wait_for(lambda: ray.available_resources().get("CPU") == total, "return of all CPUs")
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    told = [(t.state.name, sorted(t.intermediate_values)) for t in journal.get_all_trials(0)]
    assert sorted(told) == [("COMPLETE", [1, 2, 3, 4, 5, 6]), ("PRUNED", [1]), ("PRUNED", [1])]
    folders = {file.parent for file in Path(storage.root).rglob("events.out.tfevents*")}
    curves = sorted(tensorboard_steps(folder) for folder in folders)
    assert [set(curve) for curve in curves] == [{1}, {1}, {1, 2, 3, 4, 5, 6}]


def test_a_run_outlives_the_wait_for_its_node_and_says_what_it_waits_for(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE_TYPES, '{"gpu": {"resources": {"CPU": 2, "GPU": 2}, "max_workers": 1}}')
    monkeypatch.setenv(START_TIMEOUT, "3")
    assert "GPU" not in ray.cluster_resources() and uses_gpu("auto")
    config = run(num_workers=2, device="gpu")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(nodes_of(config, tmp_path / "late", gpu=True)))
    thread.start()
    said: list[str] = []
    waiting = Waiting(said.append, after=5.0, again=60.0)  # longer than Ray Train waits at a time

    def told() -> bool:
        waiting.poll()
        return bool(said)

    wait_for(told, "word of what is waited for")
    assert "waiting for 2 GPUs, 2 CPUs (2 workers); the cluster has no GPU now" in said[0]
    assert "its autoscaler may add 2" in said[0]
    assert not found
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    thread.join(timeout=300)
    assert found == [node.node_id] * 2
    waiting.poll()
    assert len(said) == 1
    assert os.environ[START_TIMEOUT] == "3"
