"""The losses: dense functions for a notebook, and the same as objectives of the training step."""

from bearray.objectives.base import LossOutput, Objective, at_least
from bearray.objectives.bear import BEAR, bear_loss, bear_regularizer
from bearray.objectives.d2lr import D2LR
from bearray.objectives.igd import IGD, information_gain, node_entropy
from bearray.objectives.msl import MSL, msl_loss
from bearray.objectives.registry import OBJECTIVES, list_objectives, make_objective
from bearray.objectives.sft import SFT, sft_loss
from bearray.objectives.tokens import AnswerTokens

__all__ = [
    "BEAR",
    "D2LR",
    "IGD",
    "MSL",
    "OBJECTIVES",
    "SFT",
    "AnswerTokens",
    "LossOutput",
    "Objective",
    "at_least",
    "bear_loss",
    "bear_regularizer",
    "information_gain",
    "list_objectives",
    "make_objective",
    "msl_loss",
    "node_entropy",
    "sft_loss",
]
