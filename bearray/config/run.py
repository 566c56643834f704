"""One training run and its evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from bearray.config.decoding import DecodingConfig, EvaluationConfig
from bearray.config.inputs import DataConfig, ModelConfig
from bearray.config.training import ObjectiveConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run and its evaluation."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
