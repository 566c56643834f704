"""Using a trained model: recommend, export, answer requests. Plain PyTorch, no Ray."""

from bearray.serving.opening import open_recommender
from bearray.serving.recommender import Recommendation, RecommendedList, Recommender
from bearray.serving.titles import TitleIndex

__all__ = ["Recommendation", "RecommendedList", "Recommender", "TitleIndex", "open_recommender"]
