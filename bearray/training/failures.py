"""What workers failed of: in plain words, kept in the run folder, and not tried again where that is vain."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ray.train
import torch
from ray.exceptions import OutOfMemoryError as NodeOutOfMemoryError
from ray.exceptions import RayActorError

from bearray.config import TrainConfig
from bearray.errors import BearrayError, ResumeError, StorageError
from bearray.runs import Storage
from bearray.training.events import EVENTS, events, tell

HUNG = "hung"
"""Folder of the notes that hanging workers leave in the run folder until they are told of in events.jsonl."""
MEMORY_TRIES = 2
"""How often a run may run out of memory. The same settings mostly need the same memory again, but the first
time may be due to what else was on the machine."""

Why = Literal["memory", "hang", "lost", "setting", "error", "start"]

logger = logging.getLogger(__name__)


class OutOfMemoryError(BearrayError, MemoryError):
    """A run needs more memory than there is; the message says what would help."""


class WorkersFailedError(BearrayError, RuntimeError):
    """A run's workers failed more often than `train.max_failures` allows."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failure of a run's workers."""

    why: Why
    """memory: not enough of it; hang: no progress; lost: a process or node is gone; setting: something that
    the user must mend; error: any other exception."""
    message: str
    """In one line."""
    ranks: tuple[int, ...]
    """The workers that it began with, as far as is known."""


class FailureLog(ray.train.UserCallback):
    """Writes each failure into the run folder, and ends runs that would only fail again.

    It lives in Ray Train's controller, where an exception of a callback ends the run without another attempt.

    Args:
        train: settings of the run.
        folder: its folder.
    """

    def __init__(self, train: TrainConfig, folder: str) -> None:
        self.train, self.folder = train, folder
        self.memory = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train with the exceptions of the workers that failed, by rank.

        Raises:
            OutOfMemoryError: for the second time.
            BearrayError: a worker's own, when only the user can mend it.
        """
        storage = Storage(self.folder)
        failure = explain(worker_exceptions, _notes(storage))
        self.memory += failure.why == "memory"
        end: BearrayError | None = None
        if failure.why == "setting":
            end = next(e for e in worker_exceptions.values() if isinstance(e, BearrayError))
        elif self.memory >= MEMORY_TRIES:
            tries = f"tried {self.memory} times with the same settings"
            end = OutOfMemoryError(f"{failure.message}; {tries}; {memory_advice(self.train)}")
        try:
            if not isinstance(end, ResumeError):  # `train` may go on from an earlier checkpoint, and tells
                tell(
                    storage,
                    failure.message,
                    why=failure.why,
                    ranks=list(failure.ranks),
                    ended_the_run=end is not None,
                )
            storage.delete(HUNG)
        except BearrayError as error:  # a record that cannot be kept is no reason to end the run
            logger.error("%s; not recorded: %s", failure.message, error)
        if end is not None:
            raise end


def in_plain_words(error: ray.train.TrainingFailedError, train: TrainConfig, folder: Storage) -> Exception:
    """What to raise where Ray Train has given up a run: an error that a user can read, or Ray's own."""
    own = getattr(error, "controller_failure", None)
    if isinstance(own, BearrayError):
        return own
    if not isinstance(error, ray.train.WorkerGroupError):
        return error
    known = [str(row["event"]) for row in events(folder) if "why" in row]
    last = known[-1] if known else explain(error.worker_failures, {}).message
    return WorkersFailedError(
        f"{last}; its workers failed more often than train.max_failures={train.max_failures} allows "
        f"({folder.root}/{EVENTS}); run the same again to continue from the last checkpoint"
    )


def note_hang(folder: Storage, rank: int, note: dict[str, Any]) -> None:
    """Leave word of why this worker ends itself."""
    folder.write_json(f"{HUNG}/{rank}.json", note)


def _notes(folder: Storage) -> dict[int, dict[str, Any]]:
    try:
        names = [name for name in folder.names(HUNG) if name.endswith(".json")]
        return {int(name.removesuffix(".json")): folder.read_json(f"{HUNG}/{name}") for name in names}
    except (BearrayError, OSError, ValueError) as error:
        logger.error("notes of hanging workers cannot be read: %s", error)
        return {}


def explain(errors: Mapping[int, Exception], notes: Mapping[int, Mapping[str, Any]]) -> Failure:
    """What failed first, in plain words.

    When a worker fails the others lose their connection to it, so the errors of several workers are of
    different weight: what is known to be a cause goes before what may be a consequence.

    Args:
        errors: by rank, as Ray Train reports them.
        notes: by rank, of workers that ended themselves because they hung.
    """
    causes = {rank: getattr(error, "health_check_failure", error) for rank, error in errors.items()}
    short = {rank: error for rank, error in causes.items() if is_out_of_memory(error)}
    if short:
        rank, error = next(iter(short.items()))
        return Failure(
            why="memory", message=f"rank {rank} ran out of memory: {last_line(error)}", ranks=tuple(short)
        )
    wrong = {rank: error for rank, error in causes.items() if _is_for_the_user(error)}
    if wrong:
        return Failure(why="setting", message=last_line(next(iter(wrong.values()))), ranks=tuple(wrong))
    if notes:
        # Who waits for others is not at fault, and has begun to wait after the last progress of who is.
        rank = max(notes, key=lambda r: (not notes[r].get("waiting"), float(notes[r].get("seconds", 0))))
        note = notes[rank]
        did = "waited for others" if note.get("waiting") else "made no progress"
        after = "in its first step" if note.get("step") is None else f"after step {note['step']}"
        said = f"rank {rank} {did} for {note.get('seconds')} s {after}, in {note.get('where')}"
        return Failure(why="hang", message=said, ranks=(rank,))
    silent = [rank for rank, e in errors.items() if type(e).__name__ == "WorkerHealthCheckTimeoutError"]
    if silent:
        said = f"{_ranks(silent)} gave no sign of life: its process is stopped, or stuck in native code"
        return Failure(why="hang", message=said, ranks=tuple(silent))
    lost = {rank: error for rank, error in causes.items() if isinstance(error, RayActorError)}
    if lost:
        return Failure(
            why="lost", message=f"{_ranks(lost)} lost: {how_it_ended(*lost.values())}", ranks=tuple(lost)
        )
    cut = [rank for rank, e in causes.items() if any(text in str(e) for text in _CUT_OFF)]
    if cut:
        said = f"{_ranks(cut)} lost the connection to another worker"
        return Failure(why="lost", message=said, ranks=tuple(cut))
    rank, error = next(iter(causes.items()))
    return Failure(
        why="error", message=f"rank {rank}: {type(error).__name__}: {last_line(error)}", ranks=(rank,)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a worker means that memory ran out: Python's, CUDA's, the CPU allocator's, which is
    a plain RuntimeError, or that Ray has ended the process to save its node."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, NodeOutOfMemoryError)):
        return True
    if isinstance(error, RayActorError):
        return "running low on memory" in str(error)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "STATUS_ALLOC_FAILED",
)
_CUT_OFF = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")


def memory_advice(train: TrainConfig) -> str:
    """What would make a run need less memory, of the settings that are not there yet."""
    found = []
    if train.micro_batch_size > 1:
        found.append(f"a smaller train.micro_batch_size (now {train.micro_batch_size})")
    if not train.gradient_checkpointing:
        found.append("train.gradient_checkpointing")
    if train.engine != "ddp" and train.zero_stage < 3:
        found.append("train.zero_stage=3 on several workers")
    found.append("shorter prompts (model.max_prompt_tokens)")
    return "what helps: " + ", ".join(found)


def _is_for_the_user(error: BaseException) -> bool:
    """Storage may be back in a moment; what else bearray itself refuses is refused again."""
    return isinstance(error, BearrayError) and not isinstance(error, StorageError)


def _ranks(ranks: Any) -> str:
    several = len(ranks) > 1
    return ("ranks " if several else "rank ") + ", ".join(str(r) for r in ranks)


def how_it_ended(*lost: BaseException) -> str:
    """What has become of a worker's process, as far as Ray's errors tell."""
    text = " ".join(str(error) for error in lost)
    if "node has died" in text or "node was preempted" in text.lower():
        return "the node under it is gone"
    return "its process has ended (killed, crashed, out of memory on the node, or the node is gone)"


def last_line(error: BaseException) -> str:
    """The last line of a message, in which Ray may have wrapped tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
