"""How titles are found, and how a split is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bearray.config.checks import at_least, optional_count, positive, require
from bearray.config.training import Device, Normalize

DecodingMethod = Literal["beam", "d3", "diverse", "exact", "greedy", "grounding"]

Decoded = Literal["trie", "full", "exact", "trie_lp1", "full_lp1"]
"""How a split was decoded: by the run's own decoder under one of the normalisers, by exact search under the
run's own normaliser, or under a normaliser with length penalty 1, which the released code has."""


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How titles are found. Fields that a method does not use are ignored by it."""

    method: DecodingMethod = "beam"
    """A decoder (`bearray decoders`): beam search over the trie, or another one."""
    beam_width: int = 10
    """Beams kept, and titles returned (greedy: one title)."""
    normalize: Normalize = "trie"
    """Softmax over the valid next tokens (released MSL and BEAR) or the vocabulary (released SFT)."""
    length_penalty: float = 0.0
    """0 ranks by overall probability (the paper); 1 divides by length (the released code)."""
    exclude_history: bool = False
    """Leave out titles that the window's history holds; a target among them is a miss."""
    exact_node_budget: int | None = None
    """Exact: prefixes scored for one window at most (None: until the list is proven)."""
    d3_alpha: float = 0.9
    """D3: weight of the language model, in [0, 1]; the rest is the text-free model's. Tune it."""
    d3_scores: Literal["popularity", "sasrec"] = "popularity"
    """D3: the text-free model: counts in training plus 1, or SASRec (`bearray baseline sasrec`)."""
    d3_sasrec_epochs: int | None = None
    """D3: epochs of that SASRec at most (None: 200, as SASRec has by itself)."""
    diverse_groups: int = 5
    """Diverse beam search: groups, which must divide the beam width."""
    diverse_penalty: float = 0.5
    """Diverse beam search: what each earlier beam with the same token costs, in nats."""
    grounding_beams: int = 4
    """Grounding: beams of the unconstrained search (BIGRec's number)."""
    grounding_gamma: float = 0.0
    """Grounding: weight of popularity in the distance; 0 leaves it out."""
    batch_size: int | None = None
    """Users decoded at a time (None: as many as memory holds)."""

    def __post_init__(self) -> None:
        at_least("decoding.beam_width", self.beam_width, 1)
        require(
            self.batch_size is None or self.batch_size >= 1,
            "decoding.batch_size",
            self.batch_size,
            "at least 1, or None for what memory holds",
        )
        # Tokens to the power of it divide scores: a larger one leaves nothing of them that can be ordered.
        penalty = self.length_penalty
        require(abs(penalty) <= 10, "decoding.length_penalty", penalty, "from -10 to 10")
        require(
            self.length_penalty == 0 or self.method in ("beam", "d3", "grounding"),
            "decoding.length_penalty",
            self.length_penalty,
            f"0 for decoding.method={self.method}, which ranks by probability",
        )
        optional_count("decoding.exact_node_budget", self.exact_node_budget)
        require(0 <= self.d3_alpha <= 1, "decoding.d3_alpha", self.d3_alpha, "in [0, 1]")
        optional_count("decoding.d3_sasrec_epochs", self.d3_sasrec_epochs)
        at_least("decoding.diverse_groups", self.diverse_groups, 1)
        require(
            self.method != "diverse" or self.beam_width % self.diverse_groups == 0,
            "decoding.diverse_groups",
            self.diverse_groups,
            f"a divisor of decoding.beam_width ({self.beam_width})",
        )
        at_least("decoding.diverse_penalty", self.diverse_penalty, 0)
        at_least("decoding.grounding_beams", self.grounding_beams, 1)
        at_least("decoding.grounding_gamma", self.grounding_gamma, 0)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The sharded evaluation of a split."""

    actors: int | None = None
    """Ray Data actors (None: as many as the cluster has room for)."""
    cpus_per_actor: float = 1.0
    """CPUs reserved for each actor; on GPU each also takes one GPU."""
    device: Device = "auto"
    """As train.device, for the actors."""
    shard_size: int = 256
    """Test cases in one predictions file, the unit of resumption."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Cut-offs of HR@K and NDCG@K."""
    also_other_normalizer: bool = True
    """Decode the chosen models with the other normaliser, too."""
    exact_test: bool = False
    """Decode the chosen models with exact search, too (the run's own normaliser and
    decoding.exact_node_budget)."""
    also_length_penalty: bool = False
    """Decode the chosen models with length penalty 1 (the released code's), too."""

    def __post_init__(self) -> None:
        optional_count("evaluation.actors", self.actors)
        positive("evaluation.cpus_per_actor", self.cpus_per_actor)
        at_least("evaluation.shard_size", self.shard_size, 1)
        require(bool(self.ks) and min(self.ks) >= 1, "evaluation.ks", self.ks, "numbers of at least 1")
