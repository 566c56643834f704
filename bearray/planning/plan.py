"""The whole plan: what fits, what is chosen, and what a run and a sweep then cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bearray.config import RunConfig
from bearray.errors import ConfigError
from bearray.objectives import REGULARISED, make_objective
from bearray.planning.cards import Device
from bearray.planning.choose import STAGES, Option, advice, apply, options
from bearray.planning.memory import DecodingMemory, decoding_memory
from bearray.planning.shapes import Shape, shape_of
from bearray.planning.speeds import Speed
from bearray.planning.sweep import SweepCost, sweep_cost
from bearray.planning.work import Work


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be planned."""

    run: RunConfig
    """What every run starts from: base model, LoRA, batch, epochs, decoding."""
    methods: tuple[str, ...]
    """Objectives."""
    work: Work
    device: Device
    gpus: int = 1
    """Of a node."""
    nodes: int = 1
    searched: tuple[str, ...] | None = None
    """Those of the objectives whose lambda and xi are searched; None: BEAR, where it is among them."""
    trials: int = 20
    seeds: int = 1
    speeds: tuple[Speed, ...] = ()
    price: float | None = None
    """Of a GPU hour, in whatever currency."""
    workers: int | None = None
    """Devices of a run (None: chosen), and so below."""
    zero_stage: int | None = None
    micro_batch: int | None = None
    checkpointing: bool | None = None

    def __post_init__(self) -> None:
        for name in ("gpus", "nodes", "trials", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if not self.methods:
            raise ConfigError("--methods is empty; it must list one or more objectives")
        for name in self.methods:
            make_objective(replace(self.run.objective, name=name))
        self._check_searched()
        for option, names in (("--methods", self.methods), ("--search-methods", self.searches)):
            if len(set(names)) < len(names):
                raise ConfigError(f"{option} is {' '.join(names)}; it must list each objective once")
        if self.price is not None and not 0 <= self.price < float("inf"):
            raise ConfigError(f"--price is {self.price}; it must be at least 0")
        if self.workers is not None and not 1 <= self.workers <= self.devices:
            raise ConfigError(
                f"--num-workers is {self.workers}, but there are {self.devices} GPUs; it must be from 1 to "
                "that"
            )

    def _check_searched(self) -> None:
        """A search that is left out for a slip of the pen would make the sweep look cheap."""
        for name in self.searches:
            if name not in REGULARISED:
                raise ConfigError(
                    f"--search-methods has {name!r}; lambda and xi are settings of {', '.join(REGULARISED)} "
                    "only"
                )
            if name not in self.methods:
                raise ConfigError(
                    f"--search-methods has {name}, which is not among --methods ({', '.join(self.methods)})"
                )

    @property
    def searches(self) -> tuple[str, ...]:
        """The objectives that are searched."""
        if self.searched is None:
            return ("bear",) if "bear" in self.methods else ()
        return self.searched

    @property
    def devices(self) -> int:
        return self.gpus * self.nodes

    @property
    def runs(self) -> list[RunConfig]:
        """One for each method."""
        return [replace(self.run, objective=replace(self.run.objective, name=name)) for name in self.methods]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was found."""

    request: Request
    shape: Shape
    options: tuple[Option, ...]
    """With the chosen number of workers: those that fit, the fastest first, then those that do not."""
    chosen: Option | None
    """None: nothing fits."""
    advice: tuple[str, ...]
    """Where nothing fits, what would help; else what would help the sweep's own defaults."""
    defaults: Option
    """The settings that a sweep has when nothing is said."""
    decoding: DecodingMemory
    sweep: SweepCost | None
    """None: nothing fits."""


def make_plan(request: Request) -> Plan:
    """Find what fits, choose, and compute what it costs.

    Raises:
        ModelError: the base model's sizes are not known.
        ConfigError: an objective that there is not, or a measured speed of another device.
    """
    shape = shape_of(request.run.model.base)
    best: tuple[list[Option], SweepCost] | None = None
    candidates: list[Option] = []
    for workers in _workers(request):
        found = _options(shape, request, workers)
        candidates = candidates or found
        if not found[0].fits:
            continue
        cost = _cost(shape, request, found[0])
        # A run on fewer GPUs wastes less; more of them must be worth it.
        if best is None or cost.wall.seconds < 0.95 * best[1].wall.seconds:
            best = found, cost
    listed = best[0] if best is not None else candidates
    chosen = listed[0] if best is not None else None
    train = request.run.train
    defaults = options(
        shape,
        request.runs,
        request.work,
        request.device,
        workers=listed[0].workers,
        stages=[train.zero_stage],
        micro_batch=train.micro_batch_size,
        checkpointing=train.gradient_checkpointing,
    )[0]
    wanted = listed[0] if chosen is None else defaults
    return Plan(
        request=request,
        shape=shape,
        options=tuple(listed),
        chosen=chosen,
        advice=tuple(advice(shape, wanted, request.runs, request.work, request.device)),
        defaults=defaults,
        decoding=decoding_memory(shape, request.run, request.work, request.device),
        sweep=None if best is None else best[1],
    )


def _workers(request: Request) -> list[int]:
    """Numbers of devices for a run: powers of two, and all of them."""
    if request.workers is not None:
        return [request.workers]
    most = min(request.devices, request.run.train.batch_size)
    return sorted({2**n for n in range(most.bit_length()) if 2**n <= most} | {most})


def _options(shape: Shape, request: Request, workers: int) -> list[Option]:
    stages = STAGES if request.zero_stage is None else (request.zero_stage,)
    return options(
        shape,
        request.runs,
        request.work,
        request.device,
        workers=workers,
        stages=stages,
        micro_batch=request.micro_batch,
        checkpointing=request.checkpointing,
    )


def _cost(shape: Shape, request: Request, option: Option) -> SweepCost:
    return sweep_cost(
        [apply(run, option) for run in request.runs],
        work=request.work,
        device=request.device,
        devices=request.devices,
        nodes=request.nodes,
        searched=request.searches,
        trials=request.trials,
        seeds=request.seeds,
        speeds=request.speeds,
        shape=shape,
    )
