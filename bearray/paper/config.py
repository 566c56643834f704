"""What is asked for: which tables and figures, on which data sets, models and seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from bearray.baselines.registry import BASELINES
from bearray.config import RunConfig, override
from bearray.config.checks import at_least, optional_count
from bearray.errors import ConfigError
from bearray.objectives import OBJECTIVES

TABLES = (1, 2, 3, 4, 5)
FIGURES = (3, 4, 5, 6, 7, 8, 9)
DEMO = "demo"
"""The data set that is made on the spot."""

PAPER_METHODS = ("sft", "d3", "cft", "d2lr", "igd", "msl", "sdpo", "rosepo", "sprec", "bear")
"""Rows of Table 2 that are fine-tuned, in its order; d3 decodes SFT's model in another way."""
D3 = "d3"
SAMPLED = ("toy", "book")
"""The data sets that the paper's Table 5 has."""


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """All tables and figures of the BEAR paper: what is missing is run, and the document is written anew."""

    table: tuple[int, ...] = ()
    """Tables, of 1 to 5. Neither --table nor --figure: everything."""
    figure: tuple[int, ...] = ()
    """Figures, of 3 to 9."""
    datasets: tuple[str, ...] = ("office", "book", "toy", "clothing")
    """Data sets, each a folder of --data-dir; demo is made on the spot."""
    sampled: tuple[str, ...] = SAMPLED
    """Those of them of which Table 5 and Figure 5 take a sample of users."""
    sample_users: int = 2_000
    """Users of such a sample."""
    data_dir: str = "data"
    """Folder that holds the prepared data sets."""
    storage: str = "results/paper"
    """Where runs and the document go: a folder. Give it again to continue."""
    base_model: str = "llama-3.2-3b"
    """The base model of all tables but the fourth: a preset, hub id, folder, or local:tiny|small|medium.
    Sizes with the same model share its runs."""
    smaller_model: str | None = "llama-3.2-1b"
    """Table 4's first; None: not run."""
    larger_model: str | None = "llama-3-8b"
    """Table 4's second; None: not run."""
    backbones: tuple[Literal["llara", "allmrec"], ...] = ("llara", "allmrec")
    """Table 3's backbones, beside bigrec, which all others have."""
    methods: tuple[str, ...] = PAPER_METHODS
    """Rows of Table 2: the paper's and, if wanted, other objectives (`bearray objectives`)."""
    baselines: tuple[str, ...] = tuple(BASELINES)
    """Rows of Table 2 that know items by number: sasrec bert4rec dros llm-cf dllm2rec."""
    baseline_epochs: int | None = None
    """Epochs of the baselines (None: the paper's 200)."""
    seeds: tuple[int, ...] = (42,)
    """Seeds of each run of Tables 2 to 4; more may be added later. Figures and Table 5 have the first."""
    trials: int = 20
    """Trials of the search for lambda and xi, of each method, data set and base model."""
    lam: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
    """Figure 8: values of lambda, at the chosen xi."""
    xi: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 3.0)
    """Figure 8: values of xi, at the chosen lambda."""
    d3_alpha: tuple[float, ...] = (0.5, 0.7, 0.9)
    """D3: weights of the language model, of which validation chooses."""
    d3_scores: Literal["popularity", "sasrec"] = "sasrec"
    """D3: the text-free model."""
    d3_sasrec_epochs: int | None = None
    """D3: epochs of its SASRec (None: as the row SASRec has, so that they are one model)."""
    chains: int | None = None
    """LLM-CF: chains of thought that the language model writes (None: 2,000)."""
    pruning_windows: int | None = 1_000
    """Figures 3, 4 and 6: test cases whose true ranks are searched for (None: all)."""
    pruning_budget: int | None = None
    """Prefixes that exact search may expand for one of them (None: until it is proven)."""
    timing_rounds: int = 10
    """Figures 5 and 9: rounds in which training steps are timed."""
    gpu: str | None = None
    """What computes, for the estimate of the cost: a card of `bearray plan` (None: what this machine has)."""
    dry_run: bool = False
    """Say what is missing and what it will cost, and stop there."""
    document_only: bool = False
    """Write the document from the runs that are there, and run nothing."""
    smoke: bool = False
    """Everything once, on the demo data, in minutes: the same as --scale smoke."""
    scale: Literal["paper", "cpu", "smoke"] = "paper"
    """paper: the paper's sizes. cpu: a small local base model, fewer windows, epochs and trials. Settings
    given explicitly win."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """What every run starts from."""

    def __post_init__(self) -> None:
        for name, known in (("table", TABLES), ("figure", FIGURES)):
            wrong = sorted(set(getattr(self, name)) - set(known))
            if wrong:
                raise ConfigError(f"--{name} has {wrong[0]}; the paper's are {', '.join(map(str, known))}")
        for name in ("datasets", "seeds", "lam", "xi", "d3_alpha"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} is {values}; it must have one or more values, each once")
        for name in self.datasets:
            if not name or "/" in name or name.startswith("."):
                raise ConfigError(f"datasets has {name!r}; it must be the name of a folder in --data-dir")
        self._check_sampled()
        unknown = [m for m in self.methods if m != D3 and m not in OBJECTIVES]
        if unknown:
            raise ConfigError(f"methods has {unknown[0]!r}; see bearray objectives")
        if missing := {"sft", "bear"} - set(self.methods):
            raise ConfigError(f"methods lacks {min(missing)}, with which the others are compared")
        unknown = [b for b in self.baselines if b not in BASELINES]
        if unknown:
            raise ConfigError(f"baselines has {unknown[0]!r}; it must be of {', '.join(BASELINES)}")
        for name in ("sample_users", "trials", "timing_rounds"):
            at_least(name, getattr(self, name), 1)
        for name in ("baseline_epochs", "d3_sasrec_epochs", "pruning_windows", "pruning_budget", "chains"):
            optional_count(name, getattr(self, name))

    def _check_sampled(self) -> None:
        """Samples of what is not there would be left out without a word; the defaults name data sets that one
        need not have."""
        strange = [name for name in self.sampled if name not in self.datasets]
        if strange and self.sampled != SAMPLED:
            raise ConfigError(
                f"sampled has {strange[0]!r}; it must be of --datasets, which are {', '.join(self.datasets)}"
            )
        asked = "--table 5" if 5 in self.table else "--figure 5" if 5 in self.figure else None
        if asked and len(strange) == len(self.sampled):
            raise ConfigError(
                f"{asked} is of samples, but --sampled ({', '.join(self.sampled)}) has none of --datasets "
                f"({', '.join(self.datasets)}); give, for example, --sampled {self.datasets[0]}"
            )

    @property
    def tables(self) -> tuple[int, ...]:
        """The tables that are asked for, in their order."""
        return TABLES if not self.table and not self.figure else tuple(sorted(set(self.table)))

    @property
    def figures(self) -> tuple[int, ...]:
        """The figures that are asked for, in their order."""
        return FIGURES if not self.table and not self.figure else tuple(sorted(set(self.figure)))

    def at_scale(self, scale: Literal["paper", "cpu", "smoke"], changes: dict[str, Any]) -> PaperConfig:
        """The same at another scale.

        Args:
            scale: which. changes: to the runs, as a sweep of that scale makes them.
        """
        if scale == "paper":
            return replace(self, scale=scale)
        smoke = scale == "smoke"
        small: dict[str, Any] = {**changes, "train.cpus_per_worker": 0.9}
        if smoke:
            small |= {"train.epochs": 2, "data.train_windows": 64, "data.valid_windows": 24}
            small |= {"evaluation.actors": 1}  # of so few windows a second one would only start
        return replace(
            self,
            scale=scale,
            smoke=smoke,
            datasets=(DEMO,) if smoke else self.datasets,
            sampled=(DEMO,) if smoke else self.sampled,
            sample_users=100 if smoke else 500,
            base_model="local:tiny",
            smaller_model="local:tiny" if smoke else None,
            larger_model="local:tiny" if smoke else None,
            baseline_epochs=2 if smoke else 20,
            trials=1 if smoke else 3,
            lam=(2.0,) if smoke else (0.25, 1.0, 4.0),
            xi=(2.0,) if smoke else (0.5, 1.0, 2.0),
            d3_alpha=(0.9,) if smoke else self.d3_alpha,
            d3_scores="popularity" if smoke else self.d3_scores,
            chains=16 if smoke else 500,
            pruning_windows=24 if smoke else 200,
            timing_rounds=1 if smoke else 6,
            run=override(self.run, small),
        )


def defaults() -> PaperConfig:
    """The paper's own settings; the test is made with length penalty 1, too, as in the released code."""
    return PaperConfig(run=override(RunConfig(), {"evaluation.also_length_penalty": True}))
