"""What can be known to fail before anything is trained."""

from __future__ import annotations

from bearray.config import RunConfig
from bearray.errors import ConfigError
from bearray.extras import PROVIDED
from bearray.negatives import check_negatives
from bearray.objectives import make_objective
from bearray.task import Task
from bearray.training.start import check_init_adapter


def check_objective(config: RunConfig, task: Task) -> None:
    """Fail before anything is trained when an objective cannot work on this catalogue.

    Raises:
        ConfigError: what the objective lacks, by name, or what it cannot be combined with.
    """
    objective = make_objective(config.objective)
    objective.check_needs(PROVIDED)
    if "thresholds" in objective.needs and config.train.zero_stage == 3:
        raise ConfigError(
            f"objective {objective.name!r} searches while it trains, each worker its own number of passes, "
            "and ZeRO stage 3 needs equal numbers; set train.zero_stage to 2 or less"
        )
    objective.schedule(config.train.epochs)
    objective.bind(task.catalog.trie)
    if objective.negatives is not None:
        check_negatives(objective.negatives, config, task)
    check_init_adapter(config)
