"""What a sweep is: a run to start from, axes to search, methods to train beside it, and a scale."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from bearray.config import RunConfig, override
from bearray.errors import ConfigError
from bearray.objectives import OBJECTIVES, REGULARISED, make_objective
from bearray.tuning.settings import method_settings
from bearray.tuning.space import LAMBDA_AND_XI, Axis, search_space

Scale = Literal["paper", "cpu", "smoke"]

_OWN_START = ("flower", "sprec")
"""Objectives that compare with a frozen reference, but do not start from a model fine-tuned with SFT."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search for lambda and xi, and whatever else: Optuna's TPE, by validation NDCG@10, with the sweep's
    first seed."""

    methods: tuple[str, ...] = ("bear",)
    """Methods whose lambda and xi are searched, where the sweep has them: bear, beam_simulation, sdpo_bear,
    or labels of such."""
    space: tuple[str, ...] = ()
    """What else is searched, for any method: METHOD:SETTING=LOW..HIGH, METHOD:SETTING=A|B|C, such as
    sdpo,dpo:objective.beta=0.05..1. Each method that is searched at all has the same number of trials."""
    trials: int = 20
    """Trials per base model and method."""
    lam: tuple[float, float] = (0.1, 5.0)
    """Range of lambda (the paper's)."""
    xi: tuple[float, float] = (0.25, 3.0)
    """Range of xi (the paper's)."""
    log_scale: bool = True
    """Sample ranges on a logarithmic scale."""
    seed: int = 42
    """Seed of the sampler."""
    early_stopping: Literal["none", "asha"] = "none"
    """asha stops trials whose validation NDCG@10 is behind that of others at the same epoch. none by default:
    the learning rate falls to 0 over a run's epochs, so that early ones say little of the last, and they are
    few."""
    grace_epochs: int = 2
    """ASHA: epochs that every trial has."""
    reduction_factor: int = 2
    """ASHA: the best 1 / reduction_factor go on at grace_epochs, at reduction_factor times as many, and so
    forth."""
    max_concurrent: int | None = None
    """Trials at a time (None: as many as the cluster has room for)."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"search.trials is {self.trials}; it must be at least 1")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigError(
                f"search.max_concurrent is {self.max_concurrent}; it must be None or at least 1"
            )
        if self.grace_epochs < 1:
            raise ConfigError(f"search.grace_epochs is {self.grace_epochs}; it must be at least 1")
        if self.reduction_factor < 2:
            raise ConfigError(f"search.reduction_factor is {self.reduction_factor}; it must be at least 2")
        for name in LAMBDA_AND_XI:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(
                    f"search.{name} is {(low, high)}; it must be (low, high) with 0 < low <= high"
                )


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Search lambda and xi of BEAR, train its rivals beside it, test each choice once, and report."""

    data_dir: str = ""
    """Prepared data set: a folder with items.parquet and sequences_{train,valid,test}.parquet."""
    storage: str = ""
    """Where runs, the search and the report go: a folder, or a URI such as s3://bucket/sweep."""
    base_model: tuple[str, ...] = ("llama-3.2-3b",)
    """One or more presets, hub ids, folders, or local:tiny|small|medium."""
    methods: tuple[str, ...] = ("sft", "msl", "bear")
    """Objectives (`bearray objectives`); those of search.methods are searched, the others are trained once
    for each base model and seed. LABEL=OBJECTIVE names a variant, whose settings method_settings gives:
    hinge=bear."""
    seeds: tuple[int, ...] = ()
    """Seeds of initialisation, order, dropout and negatives; every method is trained and tested with each, a
    searched one with the settings that were best with the first seed (none: train.seed). Base model and
    windows are the same for all. A later call may add more at the end."""
    start_from: Literal["sft", "none"] = "sft"
    """Where methods start that compare with a frozen reference (S-DPO, DPO, ...): from the SFT run's best
    checkpoint of the same base model and seed, as published, where sft is among the methods and
    train.init_adapter is not given; or where all others do."""
    method_settings: tuple[str, ...] = ()
    """Settings of some methods only: METHOD:SETTING=VALUE, such as sdpo,dpo:train.lr=2e-4."""
    smoke: bool = False
    """The shortest run that passes through every part: the same as --scale smoke."""
    scale: Scale = "paper"
    """paper: the paper's sizes. cpu: the same sweep with a small local base model and fewer windows,
    epochs and trials, in an hour or so on two cores. smoke: minutes. Settings given explicitly win."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The search."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """What every run starts from."""
    loggers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Where trials are logged beside TensorBoard; needs the extra of that name (pip install
    bearray[wandb])."""
    test: bool = True
    """Decode the test split with the chosen runs. Without it validation is all that is known of them; a later
    call may test them."""
    report: bool = True
    """Write the report at the end."""

    def __post_init__(self) -> None:
        if not self.base_model:
            raise ConfigError("base_model is empty; it must name at least one base model")
        if not self.methods:
            raise ConfigError("methods is empty; it must list one or more objectives")
        for objective in self.objectives.values():
            make_objective(replace(self.run.objective, name=objective))
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ConfigError(f"seeds is {self.seeds}; it must list numbers of at least 0, each once")
        by_method = method_settings(self.method_settings, self.objectives, self.run)
        for method in self.search.methods:
            if self.objectives.get(method, method) not in REGULARISED:
                raise ConfigError(
                    f"search.methods has {method}; lambda and xi are settings of "
                    f"{', '.join(REGULARISED)} only"
                )
        for method in self.searched if self.search.early_stopping == "asha" else ():
            epochs = by_method.get(method, {}).get("train.epochs", self.run.train.epochs)
            if self.search.grace_epochs >= epochs:
                raise ConfigError(
                    f"search.grace_epochs is {self.search.grace_epochs}, but {method} has {epochs} epochs: "
                    "no trial could be stopped early; lower it, or search.early_stopping none"
                )
        for method in self.searched:
            given = sorted({a.setting for a in self.axes(method).values()} & set(by_method.get(method, {})))
            if given:
                raise ConfigError(f"method_settings gives {method} what is searched: {', '.join(given)}")
        after = [m for m in self.objectives if self.starts_from_sft(m)]
        if "sft" in self.searched and after:
            raise ConfigError(
                f"search.space searches sft, from whose adapter {', '.join(after)} would start before it is "
                "chosen; sweep them apart, or give start_from none"
            )

    @property
    def objectives(self) -> dict[str, str]:
        """The objective of each method, by the method's label, which is the objective's own name unless
        another one is given.

        Raises:
            ConfigError: a label that is no plain word, or two methods of one label.
        """
        found: dict[str, str] = {}
        for text in self.methods:
            label, _, objective = text.rpartition("=")
            label = label or objective
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", label):
                raise ConfigError(
                    f"methods has {text!r}; it must be OBJECTIVE or LABEL=OBJECTIVE, the label of small "
                    "letters, digits and _"
                )
            if label in found:
                raise ConfigError(
                    f"methods has {label!r} twice; give one of them another label: LABEL={objective}"
                )
            found[label] = objective
        return found

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds that are trained; the first is the one that is searched with."""
        return self.seeds or (self.run.train.seed,)

    @property
    def searched(self) -> tuple[str, ...]:
        """The methods that are searched."""
        return tuple(m for m in self.objectives if self.axes(m))

    def axes(self, method: str) -> dict[str, Axis]:
        """What is searched of a method, by the name that Optuna knows it by; nothing: it is not searched.

        Raises:
            ConfigError: search.space has what cannot be, or repeats search.methods.
        """
        search = self.search
        own = search_space(search.space, self.objectives, self.run, log_scale=search.log_scale).get(
            method, {}
        )
        if method not in search.methods:
            return own
        both = {name: Axis(setting, *getattr(search, name)) for name, setting in LAMBDA_AND_XI.items()}
        twice = sorted(set(own) & set(LAMBDA_AND_XI.values()))
        if twice:
            raise ConfigError(
                f"search.space gives {method} {', '.join(twice)}, which search.methods searches in "
                "search.lam and search.xi"
            )
        return both | own

    def starts_from_sft(self, method: str) -> bool:
        """Whether a method's runs start from the SFT run's adapter."""
        return (
            self.start_from == "sft"
            and "sft" in self.objectives
            and "reference" in OBJECTIVES[self.objectives[method]].needs
            and self.objectives[method] not in _OWN_START
        )


CPU: dict[str, Any] = {
    "data.train_windows": 3_000,
    "data.valid_windows": 500,
    "data.test_windows": 2_000,
    "model.lora_r": 32,
    "model.lora_alpha": 64.0,
    "model.lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "model.max_prompt_tokens": 192,
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.micro_batch_size": 32,
    "train.lr": 2e-3,
    "train.warmup_steps": 10,
}
"""What the cpu scale changes in a run. The stand-in base model has a thousandth of the paper's weights and
knows nothing of the prompt, so it needs a larger adapter and rate: with the paper's adapter (rank 8 on two
projections) MSL stayed at random on Office's validation split, with this one it rose above it (one epoch,
one seed; a rate of
6e-3 was worse). Prompts keep their newest titles only, which halves the work."""

SMOKE: dict[str, Any] = CPU | {
    "data.train_windows": 128,
    "data.valid_windows": 40,
    "data.test_windows": 60,
    "train.epochs": 2,
    "train.warmup_steps": 2,
    "evaluation.shard_size": 32,
}
"""What the smoke scale changes."""


def scaled(sweep: SweepConfig, scale: Scale) -> SweepConfig:
    """The sweep at another scale; what it means is `CPU` and `SMOKE`."""
    if scale == "paper":
        return replace(sweep, scale=scale)
    smoke = scale == "smoke"
    return replace(
        sweep,
        scale=scale,
        smoke=smoke,
        base_model=("local:tiny",),
        search=replace(
            sweep.search,
            trials=2 if smoke else 6,
            early_stopping="none" if smoke else sweep.search.early_stopping,  # it has a single epoch
        ),
        run=override(sweep.run, SMOKE if smoke else CPU),
    )
