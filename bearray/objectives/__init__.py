"""The losses: dense functions for a notebook, and the same as objectives of the training step."""

from bearray.objectives.base import AnswerTokens, LossOutput, Objective, at_least
from bearray.objectives.bear import BEAR, bear_loss, bear_regularizer
from bearray.objectives.msl import MSL, msl_loss
from bearray.objectives.registry import OBJECTIVES, list_objectives, make_objective
from bearray.objectives.sft import SFT, sft_loss

__all__ = [
    "BEAR",
    "MSL",
    "OBJECTIVES",
    "SFT",
    "AnswerTokens",
    "LossOutput",
    "Objective",
    "at_least",
    "bear_loss",
    "bear_regularizer",
    "list_objectives",
    "make_objective",
    "msl_loss",
    "sft_loss",
]
