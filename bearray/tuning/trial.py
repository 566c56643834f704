"""One run from its folder's point of view: begun, trained, finished or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bearray.config import RunConfig, config_hash, differences, from_dict, override, to_dict
from bearray.errors import BearrayError, ResumeError, StorageError
from bearray.provenance import made
from bearray.runs import Storage
from bearray.trained import open_run
from bearray.training.trainer import train

CONFIG = "config.json"
RESULT = "result.json"
STOPPED = "stopped"
"""Status of a trial's run that was stopped early, because others were better at the same epoch."""


class RunFailedError(BearrayError, RuntimeError):
    """A run has failed; the message says of what."""


Role = Literal["method", "trial"]

FREE_TO_CHANGE = (
    "evaluation.actors",
    "evaluation.cpus_per_actor",
    "evaluation.device",
    "train.accelerator",
    "train.cpus_per_worker",
    "train.device",
    "train.hang_timeout_s",
    "train.max_failures",
    "train.placement",
)
"""Settings of a run that may change while it is continued, because no result depends on them."""

_ADDED = {
    "decoding.d3_sasrec_epochs": None,
    "evaluation.also_length_penalty": False,
    "objective.last_weight": None,
    "objective.power": None,
    "objective.uninformative_weight": None,
}
"""Settings that earlier versions did not have, and the values at which a run is what it was without them."""

_RUN = "run:"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run that is to be in storage: its settings and what its folder says of it."""

    config: RunConfig
    """`config.model.base` resolved to what workers can load."""
    role: Role
    """method: trained once as it is; trial: one point of a search."""
    method: str
    """The objective's name in capitals: SFT, MSL, BEAR."""
    dataset: str
    base_model: str
    """As the user named it."""
    base_model_kind: str
    """local stand-in, hub, or folder."""
    data_hash: str

    @property
    def run_id(self) -> str:
        """The method and a hash of all settings that a result depends on."""
        return f"{self.method.lower()}-{config_hash(_identity(self.config))}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"config": to_dict(self.config)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunPlan:
        return cls(**{**values, "config": from_dict(RunConfig, values["config"])})


def _identity(config: RunConfig) -> dict[str, Any]:
    """The settings without those that are free to change, so that a new one of them changes no id; the first
    four have always been part of it, at their defaults. Nor does a setting that was added later."""
    values = to_dict(config)
    for name in FREE_TO_CHANGE:
        group, _, field = name.partition(".")
        del values[group][field]
    values["evaluation"] |= {"actors": None, "cpus_per_actor": 1.0}
    for name, unset in _ADDED.items():
        group, _, field = name.partition(".")
        if values[group][field] == unset:
            del values[group][field]
    values["train"] |= {"cpus_per_worker": 1.0, "max_failures": 3}
    return values


def run_place(run_id: str) -> str:
    """`train.init_adapter` for the best checkpoint of another run in the same storage.

    It says which run and not where it lies, so that a run's settings, and the id that is made of them, stay
    the same when the storage moves.
    """
    return f"{_RUN}{run_id}"


def run_needed(config: RunConfig) -> str | None:
    """Id of the run that `train.init_adapter` names, if it names one."""
    place = config.train.init_adapter or ""
    return place.removeprefix(_RUN) if place.startswith(_RUN) else None


def with_start(config: RunConfig, folder: Storage) -> RunConfig:
    """The settings with the run that `train.init_adapter` names replaced by its checkpoint's folder.

    Args:
        folder: the run folder of `config`; the other run's is beside it.

    Raises:
        ResumeError: the other run is not finished.
        MissingFileError: its checkpoint is gone.
    """
    needed = run_needed(config)
    if needed is None:
        return config
    beside = Storage(folder.root.rpartition("/")[0]).child(needed)
    return override(config, {"train.init_adapter": open_run(beside).checkpoint})


def begin(plan: RunPlan, folder: Storage) -> None:
    """Write config.json, or check that the one that is there says the same.

    Raises:
        ResumeError: the folder belongs to a run with other settings.
    """
    settings = to_dict(plan.config)
    if folder.exists(CONFIG):
        old = folder.read_json(CONFIG)
        changed = [
            line for line in differences(old["run"], settings) if line.partition(":")[0] not in FREE_TO_CHANGE
        ]
        before = str(old.get("data_hash"))
        if before != plan.data_hash:
            changed.append(f"data: {before[:12]} -> {plan.data_hash[:12]} (the data set has changed)")
        if changed:
            raise ResumeError(f"{folder.root} was begun with other settings: " + "; ".join(changed))
        return
    about = {k: v for k, v in asdict(plan).items() if k != "config"}
    folder.write_json(CONFIG, {"run": settings, **about, **made()})


def finished(folder: Storage) -> dict[str, Any] | None:
    """The result of a run that has ended well, else None."""
    if not folder.exists(RESULT):
        return None
    result: dict[str, Any] = folder.read_json(RESULT)
    return result if result.get("status") == "finished" else None


def ended(folder: Storage) -> dict[str, Any] | None:
    """The result of a run that is not to be trained any further: finished, or stopped early."""
    result = folder.read_json(RESULT) if folder.exists(RESULT) else {}
    return result if result.get("status") in ("finished", STOPPED) else None


def check_not_failed(folder: Storage, attempt: str) -> None:
    """Refuse a run that has failed in the same attempt: by itself it would only fail again.

    Raises:
        RunFailedError: with its reason.
    """
    result = folder.read_json(RESULT) if folder.exists(RESULT) else {}
    if result.get("status") == "failed" and result.get("attempt") == attempt:
        raise RunFailedError(str(result.get("error")))


def execute(
    plan: RunPlan, folder: Storage, callbacks: Sequence[Any] = (), *, attempt: str | None = None
) -> dict[str, Any]:
    """Train a run, or continue it, or return what it came to if it is finished.

    Args:
        plan: the run.
        folder: its folder.
        callbacks: for Ray Train.
        attempt: kept with a failure, for `check_not_failed`.

    Returns:
        The content of result.json: best_epoch, its validation metrics, checkpoint, seconds.

    Raises:
        Exception: what ended the training; result.json then says "failed" and why.
    """
    begin(plan, folder)
    done = finished(folder)
    if done is not None:
        return done
    try:
        trained = train(with_start(plan.config, folder), folder, callbacks)
    except Exception as error:
        if ended(folder) is not None:  # a trial that is stopped loses its workers before its own process
            raise
        failed = {"status": "failed", "error": reason(error), "chosen": False, "attempt": attempt}
        try:
            folder.write_json(RESULT, failed)
        except StorageError as unwritten:
            raise unwritten from error
        raise
    result = {
        "status": "finished",
        "error": None,
        "best_epoch": trained.best_epoch,
        "valid": trained.valid,
        "checkpoint": trained.checkpoint,
        "seconds": {"train": trained.train_seconds, "valid": trained.valid_seconds},
        "chosen": False,
        "events": list(trained.events),
    }
    folder.write_json(RESULT, result)
    return result


def reason(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped in tracebacks: what a reader wants to know."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
