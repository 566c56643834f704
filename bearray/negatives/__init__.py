"""Other answers for a window, as objectives ask for them: negatives of four kinds, rollouts
and samples.

What is drawn depends on (seed, step, window) and, for the generated kinds, on the model's weights: never on
the number of workers or on how a batch is cut into micro-batches.
"""

from bearray.negatives.chance import PopularityNegatives, UniformNegatives
from bearray.negatives.generated import GeneratedAnswers
from bearray.negatives.kept import KeptAnswers
from bearray.negatives.near import NearNegatives, title_embeddings
from bearray.negatives.sampled import SampledTitles
from bearray.negatives.supply import OtherAnswers, check_negatives

__all__ = [
    "GeneratedAnswers",
    "KeptAnswers",
    "NearNegatives",
    "OtherAnswers",
    "PopularityNegatives",
    "SampledTitles",
    "UniformNegatives",
    "check_negatives",
    "title_embeddings",
]
