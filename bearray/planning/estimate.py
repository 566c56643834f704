"""How long a run will take, from measured speeds where there are some, else from the model's work.

    work = Work(train_windows=10_000, valid_windows=5_000, test_windows=5_000)
    cost = estimate_run(RunConfig(), work=work, device=CARDS["h100"])
    cost.total.seconds, cost.total.low, cost.total.high, cost.total.basis

`estimate_run` reads no file but config.json of base models that are no presets, so it is quick enough to be
called for every run of a sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from bearray.config import RunConfig
from bearray.errors import ConfigError
from bearray.planning.assumed import ASSUMED, RANGES
from bearray.planning.cards import Device, card_called
from bearray.planning.costs import evaluation_seconds, step_seconds, training_flops
from bearray.planning.objectives import factor
from bearray.planning.shapes import Shape, shape_of
from bearray.planning.speeds import Speed
from bearray.planning.work import Work

CERTAINTY = ("measured", "measured elsewhere", "computed")
"""Bases of a time, the surest first; a sum has the least sure of its parts."""


@dataclass(frozen=True)
class Time:
    """Wall seconds with a range, and what they are based on."""

    seconds: float
    low: float
    high: float
    basis: str
    """One of CERTAINTY."""

    @classmethod
    def of(cls, seconds: float, basis: str) -> Time:
        spread = RANGES[basis]
        return cls(seconds, seconds * spread.low, seconds * spread.high, basis)

    def times(self, count: float) -> Time:
        return Time(self.seconds * count, self.low * count, self.high * count, self.basis)


def total(times: Iterable[Time]) -> Time:
    """One after the other. What is wrong with one time is likely wrong with all, so ranges add up."""
    parts = list(times)
    return Time(
        sum(t.seconds for t in parts),
        sum(t.low for t in parts),
        sum(t.high for t in parts),
        max((t.basis for t in parts), key=CERTAINTY.index, default=CERTAINTY[0]),
    )


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """A run's wall time, and the devices that it holds meanwhile."""

    epoch: Time
    """Training steps of one epoch."""
    validation: Time
    """Decoding the validation windows once."""
    test: Time
    """The sharded evaluation of the test windows, with every normaliser that the run asks for."""
    epochs: int
    validations: int
    workers: int
    """Devices that train and validate."""
    actors: int
    """Devices that decode the test."""
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> Time:
        """All epochs with their validations."""
        return total([self.epoch.times(self.epochs), self.validation.times(self.validations)])

    @property
    def total(self) -> Time:
        """Training, validation and test."""
        return total([self.training, self.test])

    @property
    def device_hours(self) -> Time:
        """Hours of all devices together (`seconds` holds hours)."""
        parts = [self.training.times(self.workers / 3_600), self.test.times(self.actors / 3_600)]
        return total(parts)


def estimate_run(
    config: RunConfig,
    *,
    work: Work,
    device: Device,
    speeds: Sequence[Speed] = (),
    actors: int | None = None,
    shape: Shape | None = None,
) -> RunCost:
    """What a run will take.

    Args:
        config: the run; its objective, workers, batches, epochs, decoding and evaluation count.
        work: windows and lengths in tokens; they win over `config.data`.
        device: what each worker and each actor has: a card of `CARDS`, one by `described`, or `CPU_CORE`.
        speeds: measured ones (`read_speeds`); the nearest to the run is taken, none computes from work.
        actors: devices that decode the test; None: as many as train.
        shape: of the base model, where it is known already.

    Raises:
        ModelError: the base model's sizes are not known.
        ConfigError: a measured speed cannot be of this device.
    """
    train, shape = config.train, shape or shape_of(config.model.base)
    workers = train.num_workers
    actors = actors or config.evaluation.actors or workers
    chosen = nearest(speeds, shape, config.objective.name)
    notes: list[str] = []
    basis, rate, kind = "computed", None, factor(config.objective.name)
    multiple = kind.value
    if chosen is not None:
        rate = _rate(chosen, work, device)
        same = chosen.objective == config.objective.name
        multiple = 1.0 if same else kind.value / factor(chosen.objective).value
        alike = same and chosen.shape.weights == shape.weights and chosen.workers == workers
        basis = "measured" if alike and _is_on(chosen, device) else "measured elsewhere"
        notes.append(_words(chosen, shape, basis))
    if multiple != 1:
        notes.append(
            f"a step of {config.objective.name} is taken for {multiple:.2f} times one of "
            f"{'SFT' if chosen is None else chosen.objective}: {kind.source}"
        )
    batch = min(train.batch_size, work.train_windows)
    step = step_seconds(
        shape,
        work,
        device,
        windows=batch,
        workers=workers,
        micro_batch=train.micro_batch_size,
        adapter=shape.adapter(config.model.lora_r, config.model.lora_targets),
        zero_stage=train.zero_stage,
        checkpointing=train.gradient_checkpointing,
        rate=rate,
    )
    epoch = Time.of(ceil(work.train_windows / batch) * step * multiple, basis)
    if chosen is None and multiple != 1:  # the factor is uncertain, too
        epoch = Time(
            epoch.seconds, epoch.low * kind.low / kind.value, epoch.high * kind.high / kind.value, basis
        )
    return RunCost(
        epoch=epoch,
        validation=_decoding(config, work, device, shape, chosen, workers, work.valid_windows, start=0.0),
        test=total(
            _decoding(config, work, device, shape, chosen, actors, work.test_windows, name, start)
            for name, start in _decodings(config)
        ),
        epochs=train.epochs,
        validations=ceil(train.epochs / train.validate_every),
        workers=workers,
        actors=actors,
        notes=tuple(notes),
    )


def nearest(speeds: Sequence[Speed], shape: Shape, objective: str) -> Speed | None:
    """The measured speed that says most about training a model with an objective: of the model itself before
    others, of its objective before SFT's before others'; None of none."""

    def distance(speed: Speed) -> tuple[float, bool, bool]:
        apart = abs(speed.shape.weights - shape.weights) / shape.weights
        return apart, speed.objective != objective, speed.objective != "sft"

    return min(speeds, key=distance, default=None)


def _rate(speed: Speed, work: Work, device: Device) -> float:
    """FLOP/s of a worker that a measured speed amounts to, on windows like those of `work`, counted as those
    of SFT, and converted to the planned device.

    Raises:
        ConfigError: no such device can have been as fast or as slow.
    """
    tokens = work.prompt_tokens + work.answer_tokens
    flops = training_flops(speed.shape, work, speed.micro_batch, checkpointing=speed.checkpointing)
    rate = speed.tokens_per_second / tokens * flops
    other = None if speed.gpu is None else card_called(speed.gpu)
    if other is not None and other.name != device.name:
        rate *= device.peak / other.peak
    possible = (speed.gpu == "cpu") != device.is_gpu if speed.gpu is not None else True
    if device.is_gpu and not (possible and 0.01 * device.peak <= rate <= device.peak):
        raise ConfigError(
            f"--measured {speed.source} amounts to {rate / 1e12:,.2g} TFLOP/s, which cannot be the speed "
            "of a "
            f"{device.name} ({device.peak / 1e12:,.0f} TFLOP/s): it was measured on another device"
        )
    return rate


def _is_on(speed: Speed, device: Device) -> bool:
    """Measured on the planned device, as far as one can tell."""
    if speed.gpu is None or not device.is_gpu:
        return True
    found = card_called(speed.gpu)
    return found is not None and found.name == device.name


def _words(speed: Speed, shape: Shape, basis: str) -> str:
    what = f"training speed by {speed.source} ({speed.shape.name}, {speed.objective}"
    what += f", {speed.workers} worker{'s' * (speed.workers != 1)})"
    return what if basis == "measured" else f"{what}, converted by work"


def _decodings(config: RunConfig) -> list[tuple[str, float]]:
    """Normaliser and start of each decoding of the test; actors are started once. Exact search takes about as
    long as beam search (benchmarks/results/efficiency-cpu-office.md)."""
    decoding, evaluation = config.decoding, config.evaluation
    names = [decoding.normalize]
    if evaluation.also_other_normalizer and decoding.method != "grounding":
        names.append("full" if decoding.normalize == "trie" else "trie")
    if evaluation.also_length_penalty and decoding.length_penalty != 1:
        names *= 2
    if evaluation.exact_test and decoding.method != "exact":
        names.append(decoding.normalize)
    return [(name, ASSUMED.start_seconds if i == 0 else 0.0) for i, name in enumerate(names)]


def _decoding(
    config: RunConfig,
    work: Work,
    device: Device,
    shape: Shape,
    speed: Speed | None,
    actors: int,
    users: int,
    name: str | None = None,
    start: float = 0.0,
) -> Time:
    name = name or config.decoding.normalize
    measured = None if speed is None else speed.users_per_second.get(name)
    basis = "computed"
    if speed is not None and measured is not None:
        basis = "measured"
        if speed.shape.weights != shape.weights or not _is_on(speed, device):
            basis = "measured elsewhere"
            measured *= speed.shape.forward(1, 0) / shape.forward(1, 0)
            other = None if speed.gpu is None else card_called(speed.gpu)
            if other is not None:
                measured *= device.peak / other.peak
    seconds = evaluation_seconds(
        shape,
        work,
        device,
        actors=actors,
        users=users,
        normalize=name,
        shard_size=config.evaluation.shard_size,
        start_seconds=start,
        users_per_second=measured,
    )
    return Time.of(seconds, basis)
