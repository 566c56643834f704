"""What has to be done, in its order: each step knows whether it is done, does it, and may be interrupted."""

from __future__ import annotations

from collections.abc import Iterator

from bearray.paper.config import PaperConfig
from bearray.paper.parts import Needs
from bearray.paper.steps.baseline import baseline_step
from bearray.paper.steps.d3 import d3_step
from bearray.paper.steps.methods import methods_step
from bearray.paper.steps.pruning import pruning_step
from bearray.paper.steps.sensitivity import sensitivity_step
from bearray.paper.steps.step import Decodings, Step, tested_runs
from bearray.paper.steps.timing import timing_step

__all__ = ["Decodings", "Step", "steps", "tested_runs"]


def steps(config: PaperConfig, wanted: Needs) -> Iterator[Step]:
    """All steps, a data set after the other, those on which others build first."""
    for dataset in config.datasets:
        for part in (part for part in wanted.methods if part.dataset == dataset):
            yield methods_step(config, part, wanted.methods[part])
            if part in wanted.d3:
                yield d3_step(config, part)
            if part in wanted.pruning:
                yield pruning_step(config, part, wanted.pruning[part])
            if part in wanted.timing:
                yield timing_step(config, part, wanted.timing[part])
            if part in wanted.sensitivity:
                yield sensitivity_step(config, part)
        for method in config.baselines:
            if method in wanted.baselines.get(dataset, ()):
                yield baseline_step(config, dataset, method)
