"""Starts a run's workers with Ray Train and follows it to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import ray.train
from ray.train import CheckpointConfig, FailureConfig
from ray.train.torch import TorchConfig, TorchTrainer

from bearray.config import RunConfig, to_dict
from bearray.errors import ResumeError
from bearray.runs import CHECKPOINTS, Storage
from bearray.training.diverged import REPORT, DivergedError
from bearray.training.events import events, tell
from bearray.training.failures import HUNG, FailureLog, in_plain_words
from bearray.training.recovery import recover
from bearray.training.resources import scaling_config, uses_gpu
from bearray.training.startup import StartLimit
from bearray.training.timeouts import collective_timeout, health_checks
from bearray.training.written import DIVERGED, KEEP, KEPT, METRICS, SCORE


@dataclass(frozen=True)
class Trained:
    """How a training run ended."""

    best_epoch: int
    """The epoch with the highest validation NDCG@10, of equal ones the newest, counted from 1."""
    valid: dict[str, float]
    """Its validation metrics."""
    checkpoint: str
    """Where its checkpoint is."""
    train_seconds: float
    valid_seconds: float
    events: tuple[str, ...] = ()
    """What has befallen it, in plain words: workers that were lost or hung, damaged checkpoints."""


def train_loop(settings: dict[str, Any]) -> None:
    """`bearray.training.worker.train_loop`, imported where it runs: who starts a training needs no model's
    libraries, which take seconds to load."""
    from bearray.training import worker

    worker.train_loop(settings)


def train(config: RunConfig, folder: Storage, callbacks: Sequence[Any] = ()) -> Trained:
    """Train a run, or continue it from its last checkpoint.

    Args:
        config: the run; `config.model.base` resolved.
        folder: the run folder.
        callbacks: for Ray Train, such as `TuneReportCallback`.

    Raises:
        WorkersFailedError: the workers failed more often than `train.max_failures`, or could not be started
            more often than that in a row.
        OutOfMemoryError: they ran out of memory, and did so again when they were started again.
        BearrayError: a worker's own, which only the user can mend.
        ResumeError: the checkpoint is of another run.
        DivergedError: the loss or its gradient became NaN or infinite; the run folder's `diverged/` has the
            state before that update and a report. Such a run is not started again by itself.
    """
    for name in (DIVERGED, HUNG):  # of an earlier attempt
        folder.delete(name)
    recover(folder)
    result = _fit(config, folder, callbacks)
    if folder.exists(f"{DIVERGED}/{REPORT}"):
        raise DivergedError.of(folder.read_json(f"{DIVERGED}/{REPORT}"))
    checkpoints = [(c, m) for c, m in (result.best_checkpoints or []) if m.get(SCORE, -1.0) >= 0]
    best_checkpoint, best = max(checkpoints, key=lambda pair: (pair[1][SCORE], pair[1]["epoch"]))
    epochs = [r for r in folder.read_lines(METRICS) if r["kind"] == "epoch"]
    return Trained(
        best_epoch=int(best["epoch"]),
        valid={
            name.removeprefix("valid_"): v
            for name, v in best.items()
            if name.startswith("valid_") and "@" in name
        },
        # Ray's own path of it lacks the scheme of a storage that is not this machine's.
        checkpoint=folder.child(CHECKPOINTS, PurePosixPath(best_checkpoint.path).name).root,
        train_seconds=sum(r["seconds"] for r in epochs),
        valid_seconds=sum(r.get("valid_seconds", 0.0) for r in epochs),
        events=tuple(str(row["event"]) for row in events(folder)),
    )


def _fit(config: RunConfig, folder: Storage, callbacks: Sequence[Any]) -> ray.train.Result:
    """Train to the end, also where a checkpoint is damaged while the run is under way.

    Workers that are started again find that out. Ray's controller would give them the same one for ever, so
    another one is started, from what `recover` has left; as often as workers may fail.
    """
    left = config.train.max_failures
    while True:
        try:
            return _fit_once(config, folder, callbacks)
        except ResumeError as error:
            if left == 0 or not recover(folder):
                tell(folder, str(error), why="setting", ranks=[], ended_the_run=True)
                raise
            left -= 1


def _fit_once(config: RunConfig, folder: Storage, callbacks: Sequence[Any]) -> ray.train.Result:
    """From the newest checkpoint of Ray's record to the end, or to an error."""
    gpu = uses_gpu(config.train.device)
    told: list[Any] = [
        FailureLog(config.train, folder.root),
        StartLimit(config.train.max_failures, folder.root, "train.max_failures"),
        *callbacks,
    ]
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"config": to_dict(config), "folder": folder.root},
        scaling_config=scaling_config(config.train, gpu),
        torch_config=TorchConfig(
            backend="nccl" if gpu else "gloo",
            timeout_s=collective_timeout(config.train),
        ),
        run_config=ray.train.RunConfig(
            name=CHECKPOINTS,
            storage_path=folder.root,
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=KEPT, checkpoint_score_attribute=KEEP, checkpoint_score_order="max"
            ),
            callbacks=told,
        ),
    )
    try:
        with health_checks(config.train):
            return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise in_plain_words(error, config.train, folder) from error
