"""The losses: dense functions for a notebook, and the same as objectives of the training step."""

from bearray.objectives.base import LossOutput, NegativeSpec, Objective, at_least
from bearray.objectives.bear import BEAR, bear_loss, bear_regularizer
from bearray.objectives.best_of_n import BestOfN
from bearray.objectives.d2lr import D2LR
from bearray.objectives.dmpo import DMPO
from bearray.objectives.dpo import DPO
from bearray.objectives.flow import Flow
from bearray.objectives.flower import Flower
from bearray.objectives.grpo import GRPO
from bearray.objectives.igd import IGD, information_gain, node_entropy
from bearray.objectives.msl import MSL, msl_loss
from bearray.objectives.registry import OBJECTIVES, REGULARISED, list_objectives, make_objective
from bearray.objectives.rosepo import RosePO
from bearray.objectives.rounds import Draw, Round
from bearray.objectives.sdpo import SDPO
from bearray.objectives.sdpo_bear import SDPOBear
from bearray.objectives.sft import SFT, sft_loss
from bearray.objectives.sprec import SPRec
from bearray.objectives.tokens import Answers, AnswerTokens

__all__ = [
    "BEAR",
    "D2LR",
    "DMPO",
    "DPO",
    "GRPO",
    "IGD",
    "MSL",
    "OBJECTIVES",
    "REGULARISED",
    "SDPO",
    "SFT",
    "AnswerTokens",
    "Answers",
    "BestOfN",
    "Draw",
    "Flow",
    "Flower",
    "LossOutput",
    "NegativeSpec",
    "Objective",
    "RosePO",
    "Round",
    "SDPOBear",
    "SPRec",
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
