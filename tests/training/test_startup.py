"""Workers that cannot be started, in Ray Train's own controller without a cluster."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.exceptions import RayActorError
from ray.train import DataConfig, FailureConfig, ScalingConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus
from ray.train.v2._internal.execution.worker_group.worker import WorkerStatus

from bearray.config import TrainConfig
from bearray.runs import Storage
from bearray.training.events import events
from bearray.training.failures import WorkersFailedError, in_plain_words
from bearray.training.startup import StartLimit

DIED = RayActorError(
    error_msg="The actor died unexpectedly.\nIts worker process has died: connection error 2."
)


class Group:
    """Stands for a group of workers; `start` is what happens when one is started."""

    start: Callable[[], None]

    @classmethod
    def create(cls, **about: Any) -> Group:
        cls.start()
        return cls()

    def poll_status(self, timeout: float) -> WorkerGroupPollStatus:
        return WorkerGroupPollStatus({0: WorkerStatus(running=False, error=RuntimeError("lost later"))})

    def get_latest_poll_status(self) -> None:
        return None

    def get_workers(self) -> list[Any]:
        return [self]

    def shutdown(self) -> None:
        pass


class NoCluster(FixedScalingPolicy):
    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


def failed(cause: Exception = DIED) -> WorkerGroupStartupFailedError:
    error = WorkerGroupStartupFailedError("At least one of the worker actors failed to initialize.")
    error.__cause__ = cause
    return error


def run(
    limit: StartLimit, starts: Sequence[Exception | None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ray.train.TrainingFailedError, int]:
    """What ends a run whose starts raise these errors, and how many there were; None: workers start, and are
    lost later."""
    monkeypatch.setenv("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0")
    left, made = list(starts), []

    def start() -> None:
        assert left, "it would start workers for ever"
        made.append(left.pop(0))
        if made[-1] is not None:
            raise made[-1]

    class Controller(TrainController):
        worker_group_cls = type("ThisGroup", (Group,), {"start": staticmethod(start)})

    scaling = ScalingConfig(num_workers=1)
    config = ray.train.RunConfig(name="run", storage_path=str(folder))
    controller = Controller(
        train_fn_ref=None,
        train_run_context=TrainRunContext(
            run_config=config,
            train_loop_config=None,
            scaling_config=scaling,
            backend_config=None,
            dataset_config=DataConfig(),
        ),
        scaling_policy=NoCluster(scaling),
        failure_policy=create_failure_policy(FailureConfig(max_failures=9)),
        callbacks=[pickle.loads(pickle.dumps(limit))],  # as it gets to the controller's process
    )
    asyncio.run(controller.run())
    error = controller.get_training_failed_error()
    assert error is not None
    return error, len(made)


def test_a_run_ends_when_its_workers_never_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = StartLimit(2, str(tmp_path), "train.max_failures")
    error, starts = run(limit, [failed()] * 9, tmp_path, monkeypatch)
    assert starts == 3
    plain = in_plain_words(error, TrainConfig(), Storage(str(tmp_path)))
    assert isinstance(plain, WorkersFailedError)
    assert str(plain) == (
        "workers could not be started: its process has ended (killed, crashed, out of memory on the node, or "
        "the node is gone); it failed 3 times in a row and is tried again 2 times (train.max_failures); "
        "BEARRAY_WORKER_LOGS=1 shows what workers print; run the same again to continue"
    )
    rows = events(Storage(str(tmp_path)))
    assert [(row["why"], row["ended_the_run"]) for row in rows] == [
        ("start", end) for end in (False, False, True)
    ]


def test_waiting_for_room_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Exception | None] = [WorkerGroupStartupTimeoutError(1)] * 20
    _, starts = run(StartLimit(0), [*waited, failed()], tmp_path, monkeypatch)
    assert starts == 21


def test_failures_count_when_they_are_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [failed(), failed()]
    limit = StartLimit(2, str(tmp_path / "file" / "run"))
    (tmp_path / "file").write_text("in the way")  # what cannot be recorded is counted all the same
    error, starts = run(limit, [*pair, None, *pair, None, *pair, failed(), None], tmp_path, monkeypatch)
    assert starts == 9 and "3 times in a row" in str(error)


def test_an_exception_of_the_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = RayActorError(
        error_msg="in its creation task\n  File x\nOSError: no libx", actor_init_failed=True
    )
    error, _ = run(StartLimit(0), [failed(raised)], tmp_path, monkeypatch)
    assert "workers could not be started: OSError: no libx; it failed 1 times" in str(error)
