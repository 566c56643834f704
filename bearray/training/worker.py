"""What runs on each Ray Train worker: builds the loop, feeds Ray's reports and checkpoints."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch

from bearray.config import RunConfig, from_dict
from bearray.forward import causal_lm
from bearray.quiet import quiet_libraries
from bearray.runs import Storage
from bearray.task import load_task
from bearray.training.diverged import REPORT, DivergedError, write_report
from bearray.training.failures import note_hang
from bearray.training.loop import Loop
from bearray.training.watchdog import Watchdog
from bearray.training.written import DIVERGED, METRICS, epoch_reports

FLUSH_SECONDS = 3.0


class MetricsLog:
    """metrics.jsonl, kept whole in memory and replaced every few seconds, so that it is never half a line."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.rows = storage.read_lines(METRICS)
        self._written = time.monotonic()

    def keep_until(self, epoch: int) -> None:
        """Forget what was logged after the checkpoint that the run continues from."""
        self.rows = [r for r in self.rows if r["epoch"] <= epoch]
        self.flush()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.storage.write_lines(METRICS, self.rows)
        self._written = time.monotonic()


def train_loop(settings: dict[str, Any]) -> None:
    """Entry point of a worker.

    Args:
        settings: {"config": `to_dict(RunConfig)`, "folder": the run folder}.
    """
    quiet_libraries()
    config = from_dict(RunConfig, settings["config"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    storage = Storage(settings["folder"])
    log = MetricsLog(storage)
    watchdog = Watchdog(config.train.hang_timeout_s, lambda note: note_hang(storage, rank, note))
    loop = Loop(
        config,
        load_task(config),
        rank=rank,
        world=world,
        device=device,
        log=log.add,
        step_done=watchdog.step_done,
    )
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            loop.restore(Path(folder))
    if rank == 0:
        log.keep_until(loop.epoch)
    if config.decoding.method == "d3" and config.decoding.d3_scores == "sasrec":
        # now: it may be trained for hours, which is no hang
        loop.decoder_inputs.sasrec(config.decoding.d3_sasrec_epochs)
    body: Any = causal_lm(loop.model).base_model
    body.register_forward_pre_hook(watchdog.progress)
    with watchdog.watching():
        _train_epochs(loop, log, storage)


def _train_epochs(loop: Loop, log: MetricsLog, storage: Storage) -> None:
    """What is left of the run: steps, validation, checkpoint and report of each epoch."""
    config, rank = loop.config, loop.rank
    while loop.epoch < config.train.epochs:
        began = time.perf_counter()
        try:
            loop.run_epoch()
        except DivergedError as error:
            if rank == 0:
                log.flush()
            keep_diverged(loop, error, storage)
            return
        row: dict[str, Any] = {
            "kind": "epoch",
            "epoch": loop.epoch,
            "seconds": time.perf_counter() - began,
        }
        if loop.epoch % config.train.validate_every == 0 or loop.epoch == config.train.epochs:
            began = time.perf_counter()
            row |= loop.validate() | {"valid_seconds": time.perf_counter() - began}
        if rank == 0:
            log.add(row)
            log.flush()
        with tempfile.TemporaryDirectory() as folder:
            loop.save(Path(folder))
            saved = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
            # Rank 0 alone has the rows of all epochs, and Ray keeps what it reports.
            report = epoch_reports(log.rows)[loop.epoch] if rank == 0 else {}
            ray.train.report(report, checkpoint=saved)
        # Ray continues a run from the checkpoints that its controller has noted, which it does a moment
        # later. A worker lost in that moment would cost another epoch.
        ray.train.get_all_reported_checkpoints(consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED)


def keep_diverged(loop: Loop, error: DivergedError, storage: Storage) -> None:
    """Save the state of a diverged run and why it has ended; a collective.

    The workers end without an error afterwards: Ray would start failed ones again, and the same batches would
    only lead to the same end. `bearray.training.trainer.train` finds the report and raises.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        loop.save(folder)
        if loop.rank == 0:
            place = storage.child(DIVERGED).root
            write_report(folder, error.report | {"saved": place})
            storage.delete(DIVERGED)
            storage.put_folder(DIVERGED, folder, last=REPORT)
