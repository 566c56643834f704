"""A benchmark from its checks to efficiency.json; the same command again continues it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from bearray.backbones import base_model_kind, resolve_base
from bearray.config import RunConfig
from bearray.data import Dataset, open_dataset
from bearray.efficiency import results
from bearray.efficiency.config import ALL, EfficiencyConfig
from bearray.efficiency.energy import check_energy
from bearray.efficiency.parts import DECODING, TRAINING, measure_decoding, measure_training, plan
from bearray.efficiency.results import FOLDER, PartFolder, Record
from bearray.efficiency.statistics import SFT, baseline_of
from bearray.efficiency.variants import DROPOUT, Decoder, TimedObjective, decoder_variants, objective_variants
from bearray.errors import ConfigError
from bearray.quiet import quiet_libraries
from bearray.runs import Storage, absolute
from bearray.task import load_task, sampled_windows
from bearray.training.checks import check_objective
from bearray.training.start import check_init_adapter

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark whose settings have been checked as far as that costs nothing."""

    config: EfficiencyConfig
    dataset: Dataset
    folder: Storage
    """STORAGE/efficiency."""
    objectives: dict[str, TimedObjective]
    decoders: dict[str, Decoder]


def check(config: EfficiencyConfig) -> Benchmark:
    """Everything that can be wrong before a model is loaded or a cluster is needed.

    Raises:
        BearrayError: a setting, the data or the storage cannot work.
    """
    for name in ("data_dir", "storage"):
        if not getattr(config, name):
            raise ConfigError(f"{name} is empty; give --{name.replace('_', '-')}")
    if config.run.data.path or config.run.model.base != RunConfig().model.base:
        raise ConfigError(
            "a benchmark takes its data and model as --data-dir and --base-model, not as "
            "--data.path and --model.base"
        )
    objectives = objective_variants(config.objectives, config.run)
    decoders = decoder_variants(config.decoders, config.run.decoding)
    if config.energy:
        check_energy()
    check_init_adapter(config.run)
    dataset = open_dataset(config.data_dir, strict=config.run.data.strict)
    windows = len(sampled_windows(dataset, config.run.data, "test"))
    if decoders and config.users > windows:
        raise ConfigError(
            f"users is {config.users}, but there are {windows} test windows; it must be at most that"
        )
    storage = Storage(config.storage)
    storage.check_writable()
    folder = storage.child(FOLDER)
    if folder.exists(results.FILE):
        results.begin(folder, _about(config, dataset, []))
    return Benchmark(config=config, dataset=dataset, folder=folder, objectives=objectives, decoders=decoders)


def prepare(benchmark: Benchmark, say: Say) -> tuple[RunConfig, dict[str, Record]]:
    """Build or find the base model, check each objective against the data, and begin or continue the folder.

    Returns:
        The run whose parts are timed, and the plans of the parts that still have rounds to measure.

    Raises:
        ConfigError: an objective that was asked for by name cannot work here.
        ResumeError: the folder holds a benchmark with other settings.
    """
    config, folder = benchmark.config, benchmark.folder
    say(f"base model {config.base_model} ({base_model_kind(config.base_model)})")
    base = resolve_base(config.base_model, benchmark.dataset)
    run = config.measured_run(absolute(config.data_dir), base)
    objectives, notes = _usable(benchmark, run)
    notes += _uncompared(objectives)
    results.begin(folder, _about(config, benchmark.dataset, notes))
    for note in notes:
        say(note)
    contenders: dict[str, Any] = {TRAINING: objectives, DECODING: benchmark.decoders}
    plans = {
        part: plan(
            run,
            folder,
            contenders[part],
            rounds=config.rounds,
            steps=config.steps,
            users=config.users,
            warmup=config.warmup_steps,
            seed=config.seed,
            energy=config.energy,
        )
        for part in (TRAINING, DECODING)
        if contenders[part] and PartFolder(folder, part).missing(config.rounds)
    }
    return run, plans


def measure_locally(plans: dict[str, Record]) -> None:
    """Measure in this process, without Ray."""
    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if TRAINING in plans:
        measure_training(plans[TRAINING], rank=0, world=1, device=device)
    if DECODING in plans:
        measure_decoding(plans[DECODING], device=device)


def _usable(benchmark: Benchmark, run: RunConfig) -> tuple[dict[str, TimedObjective], list[str]]:
    """The objectives that can be timed on this data, and what is said of those that cannot.

    One that was named is an error instead.
    """
    task = load_task(run) if benchmark.objectives else None
    usable, notes = {}, []
    for label, objective in benchmark.objectives.items():
        assert task is not None
        try:
            check_objective(replace(run, objective=objective.config), task)
            usable[label] = objective
        except ConfigError as error:
            if benchmark.config.objectives != (ALL,):
                raise
            notes.append(f"{label} is left out: {error}")
    return usable, notes


def _uncompared(objectives: Mapping[str, TimedObjective]) -> list[str]:
    """What is said, before hours are spent, of objectives that will have no ratio to SFT."""
    if not any(o.config.name == SFT for o in objectives.values()):
        return []  # nobody asked for one
    contenders = {label: {DROPOUT: o.lora_dropout} for label, o in objectives.items()}
    return [
        f"{label} has no ratio to SFT, because it is compared with SFT of the same LoRA dropout; "
        f"{SFT}:{DROPOUT}={o.lora_dropout:g} among the objectives gives it one"
        for label, o in objectives.items()
        if baseline_of(label, contenders, SFT) is None
    ]


def _about(config: EfficiencyConfig, dataset: Dataset, notes: list[str]) -> Record:
    return {
        "settings": config.settings(),
        "dataset": dataset.name,
        "data_hash": dataset.content_hash,
        "base_model": config.settings()["base_model"],
        "base_model_kind": base_model_kind(config.base_model),
        "notes": notes,
    }
