"""Recommenders that know items by number only, over one data view and one training loop."""

from bearray.baselines.base import Baseline
from bearray.baselines.cache import Fitted
from bearray.baselines.data import BaselineData, TrainBatch, number_titles, view
from bearray.baselines.sasrec import SASRec, load_or_train_sasrec
from bearray.baselines.train import Fit, fit

__all__ = [
    "Baseline",
    "BaselineData",
    "Fit",
    "Fitted",
    "SASRec",
    "TrainBatch",
    "fit",
    "load_or_train_sasrec",
    "number_titles",
    "view",
]
