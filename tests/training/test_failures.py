"""Failures of workers, as Ray reports them, in plain words; which of them end a run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from ray.exceptions import ActorDiedError, RayActorError
from ray.exceptions import OutOfMemoryError as NodeOutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from bearray.config import RunConfig, TrainConfig, override
from bearray.errors import ConfigError, ResumeError, StorageError
from bearray.runs import Storage
from bearray.training.events import EVENTS, events
from bearray.training.failures import (
    FailureLog,
    OutOfMemoryError,
    WorkersFailedError,
    explain,
    in_plain_words,
    is_out_of_memory,
    memory_advice,
    note_hang,
)
from bearray.training.timeouts import collective_timeout, health_checks


def lost(text: str) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("A worker health check failed.", RayActorError(error_msg=text))


KILLED = lost(f"{ActorDiedError.BASE_ERROR_MSG}\nThe actor is dead because its worker process has died.")
NODE = lost("The actor died because its node has died. Node Id: 42\n\tthe actor's node was terminated")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 67108864 bytes. Error code 12 (Cannot allocate memory)"
)
CUT = RuntimeError("[../gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:5")


@pytest.mark.parametrize(
    "error",
    [
        CPU,
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        NodeOutOfMemoryError("Task was killed due to the node running low on memory."),
        RayActorError(error_msg="Worker was killed due to the node running low on memory."),
    ],
)
def test_what_counts_as_too_little_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    failure = explain({0: CUT, 1: error}, {})
    assert (failure.why, failure.ranks) == ("memory", (1,))
    assert "rank 1 ran out of memory" in failure.message


@pytest.mark.parametrize("error", [CUT, KILLED, RuntimeError("shape mismatch"), ValueError("memory")])
def test_what_does_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("errors", "why", "ranks", "text"),
    [
        ({1: KILLED}, "lost", (1,), "rank 1 lost: its process has ended"),
        ({0: CUT, 1: KILLED}, "lost", (1,), "rank 1 lost"),  # who is killed goes before who misses it
        ({0: NODE, 1: NODE}, "lost", (0, 1), "ranks 0, 1 lost: the node under it is gone"),
        ({0: CUT}, "lost", (0,), "rank 0 lost the connection"),
        ({2: WorkerHealthCheckTimeoutError("hanging for 20 s")}, "hang", (2,), "rank 2 gave no sign of life"),
        ({0: ConfigError("lr is 7"), 1: CUT}, "setting", (0,), "lr is 7"),
        ({0: StorageError("disk full")}, "error", (0,), "rank 0: StorageError: disk full"),
        ({3: KeyError("x")}, "error", (3,), "rank 3: KeyError: 'x'"),
    ],
)
def test_plain_words(errors: dict[int, Exception], why: str, ranks: tuple[int, ...], text: str) -> None:
    failure = explain(errors, {})
    assert (failure.why, failure.ranks) == (why, ranks)
    assert text in failure.message and "\n" not in failure.message


def test_of_workers_that_wait_for_each_other_the_first_is_named() -> None:
    notes = {
        0: {"seconds": 17.1, "step": 3, "where": "all_reduce (dist.py:1)", "waiting": True},
        1: {"seconds": 15.4, "step": 3, "where": "sleep (x.py:2)", "waiting": False},
    }
    failure = explain({0: KILLED, 1: KILLED}, notes)
    assert (failure.why, failure.ranks) == ("hang", (1,))
    assert failure.message == "rank 1 made no progress for 15.4 s after step 3, in sleep (x.py:2)"
    alone = explain({0: KILLED}, {0: notes[0]})
    assert alone.message.startswith("rank 0 waited for others for 17.1 s after step 3")
    first = explain({0: KILLED}, {0: {"seconds": 1800, "step": None, "where": "init"}})
    assert "in its first step" in first.message


class TestFailureLog:
    def log(self, folder: Path, **train: Any) -> FailureLog:
        return pickle.loads(pickle.dumps(FailureLog(TrainConfig(**train), str(folder))))

    def test_each_failure_is_told_of(self, tmp_path: Path) -> None:
        log = self.log(tmp_path)
        log.after_exception(None, {1: KILLED})
        note_hang(Storage(str(tmp_path)), 0, {"seconds": 20.0, "step": 7, "where": "f (x.py:1)"})
        log.after_exception(None, {0: KILLED})
        assert [row["why"] for row in events(Storage(str(tmp_path)))] == ["lost", "hang"]
        assert not (tmp_path / "hung").exists()

    def test_too_little_memory_ends_the_run_the_second_time(self, tmp_path: Path) -> None:
        log = self.log(tmp_path, micro_batch_size=8, max_failures=9)
        log.after_exception(None, {0: CPU})
        log.after_exception(None, {0: KILLED})
        with pytest.raises(OutOfMemoryError, match=r"tried 2 times.*train\.micro_batch_size \(now 8\)"):
            log.after_exception(None, {0: CPU})
        assert [row["ended_the_run"] for row in events(Storage(str(tmp_path)))] == [False, False, True]

    def test_what_the_user_must_mend_ends_it_at_once(self, tmp_path: Path) -> None:
        wrong = ConfigError("model.base is nowhere")
        with pytest.raises(ConfigError) as caught:
            self.log(tmp_path).after_exception(None, {0: CUT, 1: wrong})
        assert caught.value is wrong
        assert [row["ended_the_run"] for row in events(Storage(str(tmp_path)))] == [True]
        with pytest.raises(ResumeError):  # whether it ends the run is for `train` to say
            self.log(tmp_path).after_exception(None, {0: ResumeError("damaged")})
        assert len(events(Storage(str(tmp_path)))) == 1
        self.log(tmp_path).after_exception(None, {0: StorageError("disk full")})  # it may be mended by itself

    def test_a_record_that_cannot_be_kept_does_not_end_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        self.log(tmp_path / "file" / "run").after_exception(None, {1: KILLED})

    def test_a_damaged_record_is_begun_again(self, tmp_path: Path) -> None:
        (tmp_path / EVENTS).write_text('{"event": "cut o')
        self.log(tmp_path).after_exception(None, {1: KILLED})
        assert len(events(Storage(str(tmp_path)))) == 1


def test_what_is_raised_when_ray_gives_up(tmp_path: Path) -> None:
    folder, train = Storage(str(tmp_path)), TrainConfig(max_failures=2)
    given_up = ray.train.WorkerGroupError("long text\nof many lines", {1: KILLED})
    plain = in_plain_words(given_up, train, folder)
    assert isinstance(plain, WorkersFailedError)
    assert "rank 1 lost" in str(plain) and "train.max_failures=2" in str(plain) and "\n" not in str(plain)
    own = OutOfMemoryError("too little")
    assert in_plain_words(ray.train.ControllerError(own), train, folder) is own
    other = ray.train.ControllerError(OSError("x"))
    assert in_plain_words(other, train, folder) is other


def test_advice_names_only_what_is_left_to_try() -> None:
    assert "micro_batch_size (now 16)" in memory_advice(TrainConfig())
    done = TrainConfig(micro_batch_size=1, gradient_checkpointing=True, zero_stage=3)
    assert memory_advice(done) == "what helps: shorter prompts (model.max_prompt_tokens)"


def test_time_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
    monkeypatch.delenv(name, raising=False)
    for hang, answer in ((0.0, "600.0"), (30.0, "30.0"), (1800.0, "600.0")):
        with health_checks(TrainConfig(hang_timeout_s=hang)):
            assert os.environ[name] == answer
        assert name not in os.environ
    monkeypatch.setenv(name, "77")
    with health_checks(TrainConfig(hang_timeout_s=30)):
        assert os.environ[name] == "77"
    assert os.environ[name] == "77"
    assert collective_timeout(TrainConfig(hang_timeout_s=0)) == 1800
    assert collective_timeout(TrainConfig(hang_timeout_s=7200)) == 14400


def test_a_time_out_below_zero() -> None:
    with pytest.raises(ConfigError, match=r"train\.hang_timeout_s"):
        override(RunConfig(), {"train.hang_timeout_s": -1})
