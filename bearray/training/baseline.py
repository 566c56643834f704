"""A baseline's training under Ray Train: workers run the loop of `bearray.baselines.train` on shares of each
batch.

The state is a checkpoint after each epoch, so a lost worker, or the same command given again, continues
there. What a worker needs it opens itself: data set, settings, and the file of what a language model has
said.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from bearray.baselines import Baseline, Fit, Inputs, Job, baseline, fit, number_titles
from bearray.baselines.parts import PARTS, read_parts
from bearray.baselines.progress import epoch_progress
from bearray.baselines.team import Team
from bearray.baselines.train import History, best_epoch, finished
from bearray.config import from_dict, to_dict
from bearray.data import open_dataset
from bearray.errors import BearrayError, ConfigError, ResourceError
from bearray.quiet import quiet_libraries
from bearray.runs import Storage, fetch_folder
from bearray.training.startup import StartLimit

METRICS = "metrics.jsonl"
_TRAINING, _FAILED = "training", "failed.json"
_POLL_SECONDS = 1.0
_MAX_FAILURES = 3


class RayBaselineTrainer:
    """A `bearray.baselines.cache.Trainer` that trains on the cluster.

    Args:
        folder: the run folder; its training/ holds the checkpoints for as long as they are needed.
        unescape, strict: as the data set was opened and its titles numbered.
        llm_folder: folder or URI of the file of what a language model has said; None: there is none.
        progress: show the epochs on stderr.
    """

    def __init__(
        self,
        folder: Storage,
        *,
        unescape: bool = True,
        strict: bool = False,
        llm_folder: str | None = None,
        progress: bool = True,
    ) -> None:
        self.folder, self.unescape, self.strict = folder, unescape, strict
        self.llm_folder, self.progress = llm_folder, progress

    def __call__(self, job: Job, state: Path) -> tuple[Baseline, Fit]:
        """Train a job, or continue it; `state` is not used, since workers may be on other machines.

        Raises:
            ConfigError: the training diverged.
            ResourceError: the cluster is too small.
            WorkersFailedError: the workers could not be started.
            ray.train.TrainingFailedError: they failed too often.
        """
        train = job.settings.train
        gpu = _room_on_gpus(train.num_workers)
        where = self.folder.child(_TRAINING)
        where.delete(_FAILED)
        settings = {
            "name": job.kind.name,
            "config": to_dict(job.settings),
            "key": job.key,
            "data": job.inputs.dataset.path,
            "unescape": self.unescape,
            "strict": self.strict,
            "llm": self.llm_folder
            and {"folder": self.llm_folder, "key": job.inputs.llm and job.inputs.llm.key},
            "folder": self.folder.root,
        }
        limits: list[Any] = [StartLimit(_MAX_FAILURES, self.folder.root)]
        trainer = TorchTrainer(
            worker,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=train.num_workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": 1, **({"GPU": 1} if gpu else {})},
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=ray.train.RunConfig(
                name=f"{job.kind.name}-{job.key[:16]}",
                storage_path=where.root,
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
                callbacks=limits,
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        title = f"{job.kind.name} on {job.inputs.dataset.name}" if self.progress else None
        with _followed(self.folder, title, train.epochs):
            try:
                result = trainer.fit()
            except ray.train.ControllerError as error:
                if isinstance(error.controller_failure, BearrayError):
                    raise error.controller_failure from error
                raise
        if where.exists(_FAILED):
            raise ConfigError(str(where.read_json(_FAILED)["error"]))
        model = job.build()
        assert result.checkpoint is not None, "a training has at least one epoch"
        with result.checkpoint.as_directory() as found:
            fitted = finished(model, found)
        self.folder.delete(_TRAINING)
        return model, fitted


def worker(settings: dict[str, Any]) -> None:
    """Entry point of a Ray Train worker; `settings` as `RayBaselineTrainer` makes them."""
    quiet_libraries()
    entry = baseline(settings["name"])
    config = from_dict(entry.config, settings["config"])
    context = ray.train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    dataset = open_dataset(settings["data"], strict=settings["strict"])
    llm = None
    if settings["llm"]:
        with fetch_folder(settings["llm"]["folder"]) as local:
            llm = read_parts(local / PARTS, settings["llm"]["key"])
    titles = number_titles(dataset.items, unescape=settings["unescape"])
    job = Job(entry.kind, config, Inputs(dataset, titles, config.max_history, llm))
    if job.key != settings["key"]:
        raise ConfigError(f"{settings['data']} is not the data that the training was started with")
    storage = Storage(settings["folder"])

    with tempfile.TemporaryDirectory() as name:
        local = Path(name)
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as kept:
                shutil.copytree(kept, local, dirs_exist_ok=True)

        def report(history: History) -> None:
            saved = None
            if team.rank == 0:
                storage.write_lines(METRICS, [{"kind": "epoch", **r} for r in history])
                saved = ray.train.Checkpoint.from_directory(name)
            ray.train.report(dict(history[-1]), checkpoint=saved)

        model = job.build().to(device)
        try:
            fit(
                model,
                job.inputs.data,
                config.train,
                folder=local,
                settings=job.about,
                on_epoch=report,
                team=team,
            )
        except ConfigError as error:  # the same on all workers; another try would only repeat it
            if team.rank == 0:
                storage.child(_TRAINING).write_json(_FAILED, {"error": str(error)})


def _room_on_gpus(workers: int) -> bool:
    """Whether the workers take GPUs: where the cluster has any.

    Raises:
        ResourceError: more workers than the cluster has room for; they would wait for ever.
    """
    have = ray.cluster_resources()
    kind = "GPU" if have.get("GPU", 0) else "CPU"
    if workers > have.get(kind, 0):
        raise ResourceError(
            f"train.num_workers is {workers}, but the cluster has {have.get(kind, 0):g} {kind}s"
        )
    return kind == "GPU"


@contextmanager
def _followed(folder: Storage, title: str | None, epochs: int) -> Iterator[None]:
    """Progress on stderr while the workers train, read from the run folder, wherever they are."""
    seen = len(folder.read_lines(METRICS)) if folder.exists(_TRAINING) else 0
    stop = threading.Event()
    with epoch_progress(title, epochs, seen) as show:

        def poll() -> None:
            nonlocal seen
            rows = folder.read_lines(METRICS)
            for count in range(seen + 1, len(rows) + 1):
                row = rows[count - 1]
                best = best_epoch(rows[:count])
                show(count, f"loss {row['loss']:.4f}, NDCG@10 {row['valid_ndcg@10']:.4f} (best {best})")
            seen = max(seen, len(rows))

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                poll()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            poll()
