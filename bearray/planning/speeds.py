"""Measured speeds: what a run, or a benchmark of objectives, says about how fast this model trains and
decodes on this kind of device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bearray.config import RunConfig, from_dict
from bearray.errors import ConfigError, DataError, MissingFileError, ModelError
from bearray.plain import Number, check_shape, parse_json
from bearray.planning.shapes import Shape, shape_of
from bearray.runs import Storage

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
EFFICIENCY = "efficiency/efficiency.json"
WARM_UP = 2
"""Steps of a run that are left out: the first ones compile kernels and fill caches."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast something was."""

    source: str
    """The file that says so."""
    shape: Shape
    objective: str
    micro_batch: int
    checkpointing: bool
    workers: int
    tokens_per_second: float
    """Tokens of prompts and targets that a worker trained with in a second."""
    users_per_second: Mapping[str, float] = field(default_factory=dict)
    """Normaliser -> users that an actor decoded in a second; what is not there was not measured."""
    gpu: str | None = None
    """The card's name, "cpu", or None where the file does not tell."""


def read_speeds(place: str, base: str | None = None) -> list[Speed]:
    """The speeds that a file or folder tells of.

    Args:
        place: a run folder, a storage with a benchmark of objectives (`bearray bench objectives`), or the
            benchmark's efficiency.json; URIs work, too.
        base: the base model that was measured, where its own name does not lead to it on this machine.

    Raises:
        MissingFileError: there is nothing of the kind.
        ConfigError, DataError: it tells no speed, or is damaged.
    """
    if place.endswith(".json"):
        folder, _, name = place.rpartition("/")
        return _of_benchmark(Storage(folder or "."), name, base)
    storage = Storage(place)
    if storage.exists(CONFIG):
        return [_of_run(storage, base)]
    for name in (EFFICIENCY, "efficiency.json"):
        if storage.exists(name):
            return _of_benchmark(storage, name, base)
    raise MissingFileError(
        f"--measured {place}: neither a run folder (no {CONFIG}) nor a storage with a benchmark (no "
        f"{EFFICIENCY})"
    )


def _of_run(storage: Storage, base: str | None) -> Speed:
    run = from_dict(RunConfig, storage.read_json(CONFIG)["run"])
    steps = [row.get("tokens_per_s") for row in storage.read_lines(METRICS) if row.get("kind") == "step"]
    known = [float(s) for s in steps[WARM_UP:] if Number(low=0).fits(s) and s]
    if not known:
        raise ConfigError(
            f"--measured {storage.root}: its {METRICS} has no more than {WARM_UP} steps with a speed; give "
            "a run that "
            "trained for longer"
        )
    result = storage.read_json(RESULT) if storage.exists(RESULT) else {}
    decoding = result.get("seconds", {}).get("decoding", {})
    test = result.get("test") or {}
    users = {
        name: test[name]["all"]["n"] / seconds
        for name, seconds in decoding.items()
        if seconds and test.get(name, {}).get("all", {}).get("n")
    }
    return Speed(
        source=storage.root,
        shape=_shape(base or run.model.base, storage.root),
        objective=run.objective.name,
        micro_batch=run.train.micro_batch_size,
        checkpointing=run.train.gradient_checkpointing,
        workers=run.train.num_workers,
        tokens_per_second=median(known) / run.train.num_workers,
        users_per_second=users,
    )


_TURN = {"seconds!": [Number(low=0)]}
_PART = {
    "rounds!": [{"size!": Number(low=0), "turns!": {"*": _TURN}}],
    "machine!": {"gpu": (str, type(None))},
    "passes!": {"*": {"weights!": [Number(low=0)]}},
    "workers": Number(whole=True, low=1),
    "steps": Number(low=1),
}
_BENCHMARK = {
    "settings!": {"run!": dict, "base_model": str},
    "training!": (dict, type(None)),
    "base_model!": str,
}


def _of_benchmark(storage: Storage, name: str, base: str | None) -> list[Speed]:
    where = f"{storage.root}/{name}"
    if not storage.exists(name):
        raise MissingFileError(f"--measured {where} does not exist")
    try:
        content = parse_json(storage.read_bytes(name))
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON: {error}") from error
    check_shape(content, _BENCHMARK, where)
    training = content["training"]
    if training is None or not training.get("rounds"):
        raise ConfigError(f"--measured {where} has no rounds of training; give one that measured objectives")
    check_shape(training, _PART, where)
    run = from_dict(RunConfig, content["settings"]["run"])
    shape = _shape(base or content["settings"].get("base_model") or content["base_model"], where)
    workers = int(training.get("workers", 1))
    users = _users(content.get("decoding"), where)
    found = []
    for label in training["rounds"][0]["turns"]:
        objective, _, variant = label.partition(":")
        speeds = _per_second(training, label)
        if variant or not speeds:  # a variant's settings are not those that a plan is for
            continue
        found.append(
            Speed(
                source=where,
                shape=shape,
                objective=objective,
                micro_batch=run.train.micro_batch_size,
                checkpointing=run.train.gradient_checkpointing,
                workers=workers,
                tokens_per_second=median(speeds) / workers,
                users_per_second=users,
                gpu=training["machine"].get("gpu") or "cpu",
            )
        )
    return found


def _users(decoding: Any, where: str) -> dict[str, float]:
    if not decoding or not decoding.get("rounds"):
        return {}
    check_shape(decoding, _PART, where)
    labels = {"trie": "beam", "full": "beam:normalize=full"}
    found = {name: _per_second(decoding, label) for name, label in labels.items()}
    return {name: median(speeds) for name, speeds in found.items() if speeds}


def _per_second(part: Mapping[str, Any], label: str) -> list[float]:
    """Units of work a second in each round."""
    speeds = []
    for number in part["rounds"]:
        turn = number["turns"].get(label)
        weights = part["passes"].get(label, {}).get("weights", [])
        if turn is None or len(weights) != len(turn["seconds"]):
            continue
        seconds = sum(s * w for s, w in zip(turn["seconds"], weights, strict=True))
        if seconds > 0:
            speeds.append(number["size"] / part.get("steps", 1) / seconds)
    return speeds


def _shape(base: str, where: str) -> Shape:
    try:
        return shape_of(base)
    except ModelError as error:
        raise ConfigError(
            f"--measured {where}: the sizes of its base model {base!r} are not known here; give its folder "
            "with "
            "--measured-model"
        ) from error
