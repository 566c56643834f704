"""The baselines: recommenders that know items by number, over one data view and one training loop. Two of
them also read what a language model has said."""

from bearray.baselines.base import Baseline
from bearray.baselines.cache import Fitted, Job, load_or_train
from bearray.baselines.data import BaselineData, Inputs, TrainBatch, number_titles, view
from bearray.baselines.parts import LLMParts
from bearray.baselines.registry import BASELINES, Entry, baseline
from bearray.baselines.sasrec import SASRec, load_or_train_sasrec
from bearray.baselines.train import Fit, fit

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineData",
    "Entry",
    "Fit",
    "Fitted",
    "Inputs",
    "Job",
    "LLMParts",
    "SASRec",
    "TrainBatch",
    "baseline",
    "fit",
    "load_or_train",
    "load_or_train_sasrec",
    "number_titles",
    "view",
]
