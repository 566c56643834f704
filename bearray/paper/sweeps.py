"""The sweeps that a part's runs come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bearray.backbones import resolve_base
from bearray.backbones.presets import LOCAL_PREFIX
from bearray.config import RunConfig, override
from bearray.data import open_dataset
from bearray.objectives import REGULARISED
from bearray.paper.config import PaperConfig
from bearray.paper.data import data_folder, domain
from bearray.paper.parts import Part, all_methods
from bearray.paper.stored import SENSITIVITY
from bearray.runs import Storage
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.published import published_settings

SAMPLE_TEST_WINDOWS = 500
"""Test cases of Table 5: its published values are multiples of 0.002."""


def part_storage(config: PaperConfig, part: Part) -> Storage:
    """The storage of a part's sweep."""
    return Storage(config.storage).child(part.folder)


def part_base(config: PaperConfig, part: Part) -> str:
    """The base model of a part as sweeps take it. A sample's stand-in is that of all users, not one more."""
    if not part.sampled or not part.base.startswith(LOCAL_PREFIX):
        return part.base
    whole = data_folder(config, replace(part, sampled=False))
    return resolve_base(part.base, open_dataset(whole, strict=config.run.data.strict))


def part_run(config: PaperConfig, part: Part) -> RunConfig:
    """What every run of a part starts from, but for data and base model."""
    changes: dict[str, object] = {"model.backbone": part.backbone, "data.domain": domain(part)}
    if part.sampled:
        changes["data.test_windows"] = min(
            config.run.data.test_windows or SAMPLE_TEST_WINDOWS, SAMPLE_TEST_WINDOWS
        )
    if part.backbone != "bigrec" and config.baseline_epochs is not None:
        changes["model.soft.sasrec.train.epochs"] = config.baseline_epochs
        changes["model.soft.align_epochs"] = min(config.baseline_epochs, config.run.model.soft.align_epochs)
    return override(config.run, changes)


def part_sweep(config: PaperConfig, part: Part) -> SweepConfig:
    """The sweep of a part, with all methods that it has anywhere in the paper."""
    methods = all_methods(config, part)
    return SweepConfig(
        data_dir=str(data_folder(config, part)),
        storage=part_storage(config, part).root,
        base_model=(part.base,),
        methods=methods,
        seeds=config.seeds[:1] if part.sampled else config.seeds,
        method_settings=published_settings(methods, small=config.scale != "paper"),
        search=SearchConfig(methods=tuple(m for m in methods if m in REGULARISED), trials=config.trials),
        run=part_run(config, part),
    )


def with_base(config: PaperConfig, part: Part, sweep: SweepConfig) -> SweepConfig:
    """A part's sweep as it is run, with the base model as sweeps take it; a stand-in is built now."""
    return replace(sweep, base_model=(part_base(config, part),))


def sensitivity_points(
    config: PaperConfig, chosen: Mapping[str, float] | None
) -> dict[str, dict[str, float]]:
    """Figure 8's values of lam and xi, one of them off the chosen point, by label.

    Args:
        chosen: lam and xi of the part's BEAR; None where they are not known yet: then no value can be left
            out, and the run's own stand for them.
    """
    middle = chosen or {axis: getattr(config.run.objective, axis) for axis in ("lam", "xi")}
    found = {}
    for axis, other in (("lam", "xi"), ("xi", "lam")):
        others = [v for v in getattr(config, axis) if chosen is None or v != chosen[axis]]
        for i, value in enumerate(others):
            found[f"{axis}{i}"] = {axis: value, other: middle[other]}
    return found


def sensitivity_sweep(config: PaperConfig, part: Part, chosen: Mapping[str, float] | None) -> SweepConfig:
    """BEAR of a part at `sensitivity_points`; validated, never tested. `chosen` as there."""
    points = sensitivity_points(config, chosen)
    settings = [
        f"{label}:objective.{axis}={v!r}" for label, point in points.items() for axis, v in point.items()
    ]
    return replace(
        part_sweep(config, part),
        storage=part_storage(config, part).child(SENSITIVITY).root,
        methods=tuple(f"{label}=bear" for label in points),
        seeds=config.seeds[:1],
        method_settings=tuple(settings),
        search=SearchConfig(methods=()),
        test=False,
        report=False,
    )
