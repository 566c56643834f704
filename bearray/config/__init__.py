"""Every setting of a run, as frozen dataclasses that are checked when they are built.

A setting lives here and nowhere else: the command line is made from these classes, `config.json` in a run
folder is `to_dict(config)`, and workers get the dictionary back. Defaults are the paper's (arXiv 2601.22925,
section 5.1) where it states them, else those of its published code.
"""

from bearray.config.baselines import (
    BaselineConfig,
    BaselineTrainConfig,
    BERT4RecConfig,
    DLLM2RecConfig,
    DROSConfig,
    LanguageModelConfig,
    LLMCFConfig,
    SASRecConfig,
)
from bearray.config.decoding import Decoded, DecodingConfig, DecodingMethod, EvaluationConfig
from bearray.config.inputs import BackboneName, DataConfig, ModelConfig, SoftTokenConfig
from bearray.config.run import RunConfig
from bearray.config.training import (
    BestOfUpdate,
    Device,
    Form,
    NegativeKind,
    Normalize,
    ObjectiveConfig,
    Placement,
    TrainConfig,
)
from bearray.config.tree import config_hash, differences, from_dict, leaves, override, to_dict

__all__ = [
    "BERT4RecConfig",
    "BackboneName",
    "BaselineConfig",
    "BaselineTrainConfig",
    "BestOfUpdate",
    "DLLM2RecConfig",
    "DROSConfig",
    "DataConfig",
    "Decoded",
    "DecodingConfig",
    "DecodingMethod",
    "Device",
    "EvaluationConfig",
    "Form",
    "LLMCFConfig",
    "LanguageModelConfig",
    "ModelConfig",
    "NegativeKind",
    "Normalize",
    "ObjectiveConfig",
    "Placement",
    "RunConfig",
    "SASRecConfig",
    "SoftTokenConfig",
    "TrainConfig",
    "config_hash",
    "differences",
    "from_dict",
    "leaves",
    "override",
    "to_dict",
]
