"""Experiment trackers beside TensorBoard, through Ray's own callbacks."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from bearray.errors import ConfigError


def make_callbacks(names: Sequence[str], *, project: str) -> list[Any]:
    """Ray Tune callbacks for trackers.

    Credentials and addresses come from each tracker's own environment (WANDB_API_KEY, WANDB_MODE,
    MLFLOW_TRACKING_URI); they are never part of a config.

    Args:
        names: "wandb", "mlflow".
        project: the W&B project or MLflow experiment.

    Raises:
        ConfigError: a tracker is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"loggers has {name!r}, which is not installed; pip install 'bearray[{name}]'")
    callbacks: list[Any] = []
    if "wandb" in names:
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project=project))
    if "mlflow" in names:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks.append(MLflowLoggerCallback(experiment_name=project))
    return callbacks
