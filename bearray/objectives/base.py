"""The contract between the training step and a loss.

The step hands over the answer tokens of a micro-batch as `AnswerTokens`; an `Objective` returns a
`LossOutput`: a SUM and the weight that it is to be divided by. Totals and weights of micro-batches and of
workers add up, so the step divides once, by the weight of the whole optimiser step,

    loss = (sum of totals) / at_least(sum of weights)

and neither the number of workers nor gradient accumulation changes the result.

Axes: N answer tokens (rows), V vocabulary, K valid next tokens of the widest trie node among the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bearray.config import NegativeKind, Normalize, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.ops import beam_threshold, log_softmax, mask_out, pick
from bearray.objectives.rounds import Round
from bearray.objectives.tokens import AnswerTokens, Trie

Metric = tuple[Tensor, Tensor]
"""A sum and the count it is divided by, once both are added up over micro-batches and workers."""


@dataclass
class LossOutput:
    """What a loss returns for a micro-batch."""

    total: Tensor
    """Scalar SUM over the answer tokens, differentiable, also if there are none."""
    weight: Tensor
    """Scalar, detached: what `total` is divided by once both are summed over micro-batches and workers."""
    metrics: dict[str, Metric]
    """Name -> (sum, count), detached."""
    stats: Tensor | None = None
    """Sums for `Objective.end_step`, added up like `weight`; None if the objective adapts nothing."""


@dataclass(frozen=True)
class NegativeSpec:
    """Which answers an objective wants beside each window's target."""

    kind: NegativeKind | Literal["rollout", "sample"]
    """uniform, popularity, near, self: titles other than the target, exactly `count` for each window.
    rollout: what beam search with the policy as it stands returns, the target included where it is found,
    best first and with scores; fewer where the search finds fewer.
    sample: titles drawn from the policy as it stands, restricted to the trie; any may come, also the target,
    and more than once."""
    count: int
    """Answers for each window, at least 1."""


def at_least(weight: Tensor) -> Tensor:
    """`weight`, kept from 0: the loss of a step in which no token counts (all are forced) is 0, not NaN."""
    return weight.clamp_min(1e-8)


class Objective(ABC):
    """A loss over answer tokens, as the one training step uses it."""

    name: ClassVar[str]
    """What `ObjectiveConfig.name` says."""
    source: ClassVar[str]
    """The paper that it is from."""
    needs: frozenset[str] = frozenset()
    """What the step must provide beyond logits: "trie"; "negatives" (see there); "reference", the
    log-probability of each token under the frozen reference; "without_history",
    `AnswerTokens.logits_without_history`; or other names of `AnswerTokens.extras` and
    `window_extras`."""
    negatives: NegativeSpec | None = None
    """The answers it wants beside the targets; `needs` has "negatives" if there are any."""
    vocabulary: Normalize = "full"
    """The softmax is over the trie's valid next tokens, or over all tokens."""
    candidates_only: bool = False
    """It looks at no logits but those of valid next tokens, so the step may leave the other columns out."""
    positions: Literal["all", "branching"] = "all"
    """Which answer tokens must be among the rows. "branching": forced tokens have loss and gradient that do
    not depend on the logits, so they need no logits; `AnswerTokens.num_answer_tokens` still counts them."""
    per_window: bool = False
    """The loss is a mean over windows, not over answer tokens."""
    weight_from: Literal["counts", "extras", "logits"] = "counts"
    """What tells `LossOutput.weight`: counts of tokens or windows (`weight_of`), the values in
    `AnswerTokens.extras` (`token_weights`), or nothing short of the forward pass."""
    beam_width: int = 10
    """The B of the pruning metrics."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: ObjectiveConfig) -> Objective:
        """Build the objective from the fields of `config` that it uses."""

    @abstractmethod
    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        """The loss of a micro-batch."""

    def weight_of(self, num_tokens: int, num_branching: int, num_windows: int = 0) -> float:
        """`LossOutput.weight` of a micro-batch before its forward pass.

        Args:
            num_tokens: its targets' tokens, forced ones included.
            num_branching: those with more than one valid next token.
            num_windows: its windows.

        Raises:
            RuntimeError: `weight_from` is not "counts".
        """
        if self.weight_from != "counts":
            raise RuntimeError(f"the weight of {self.name!r} is no count; it is from {self.weight_from}")
        return float(num_windows if self.per_window else num_tokens)

    def token_weights(self, extras: Mapping[str, Tensor], instance: Tensor) -> Tensor:
        """[N] weights whose sum is `LossOutput.weight`, where `weight_from` is "extras".

        Args:
            extras: as `AnswerTokens.extras`, what `needs` asks for, [N] each.
            instance: [N] which answer each token belongs to.
        """
        raise RuntimeError(f"the weight of {self.name!r} is from {self.weight_from}, not from extras")

    def check_needs(self, provided: Collection[str]) -> None:
        """Called before training with the names of what the step can provide.

        Raises:
            ConfigError: something that the objective needs is not among them.
        """
        missing = sorted(self.needs.difference(provided))
        if missing:
            raise ConfigError(
                f"objective {self.name!r} needs {', '.join(missing)}, which this run does not provide"
            )

    # Optional hooks: an objective without state has nothing to do in them.

    def bind(self, trie: Trie) -> None:  # noqa: B027
        """Called once before training, with the catalogue's trie.

        Raises:
            ConfigError: the objective cannot work on this catalogue.
        """

    def schedule(self, epochs: int) -> tuple[Round, ...]:
        """What each epoch of a run does: this loss on all training windows, unless it says otherwise.

        Raises:
            ConfigError: the objective cannot be trained in so many epochs.
        """
        return (Round(self),) * epochs

    def end_step(self, stats: Tensor) -> None:  # noqa: B027
        """Called after each optimiser step with `LossOutput.stats` summed over micro-batches and workers."""

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must keep, as plain numbers."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """The inverse of `state_dict`."""
        if state:
            raise ValueError(f"objective {self.name!r} keeps no state; got {', '.join(sorted(state))}")

    def log_probs(self, tokens: AnswerTokens, tau: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probabilities in the objective's vocabulary, [N,V] or [N,K], and the target's column [N].

        Raises:
            ValueError: a full-vocabulary objective is given part of the vocabulary or of the tokens.
        """
        if self.vocabulary == "trie":
            return log_softmax(tokens.candidate_logits, tau), tokens.target_column
        if tokens.partial or tokens.skipped:
            raise ValueError(
                f"objective {self.name!r} over the full vocabulary needs all tokens and all columns"
            )
        return log_softmax(mask_out(tokens.logits, None), tau), tokens.targets

    def extra(self, tokens: AnswerTokens, name: str) -> Tensor:
        """One of `AnswerTokens.extras`, a number for each row.

        Raises:
            ConfigError: the training step did not provide it.
            ValueError: not one number for each row.
        """
        if name not in tokens.extras:
            raise ConfigError(
                f"objective {self.name!r} needs {name!r}, which the training step did not provide"
            )
        values = tokens.extras[name].to(tokens.logits.device)
        if values.shape != tokens.targets.shape:
            raise ValueError(
                f"extras[{name!r}] must be [{len(tokens.targets)}], one a row; got {tuple(values.shape)}"
            )
        return values

    def window_extra(self, tokens: AnswerTokens, name: str) -> Tensor:
        """One of `AnswerTokens.window_extras`, [R, ...].

        Raises:
            ConfigError: the training step did not provide it.
        """
        if name not in tokens.window_extras:
            raise ConfigError(
                f"objective {self.name!r} needs {name!r}, which the training step did not provide"
            )
        return tokens.window_extras[name].to(tokens.logits.device)

    def common_metrics(self, tokens: AnswerTokens, nll: Tensor) -> dict[str, Metric]:
        """The metrics of every objective, over the tokens of the windows' targets.

        - nll: -log p of the target per answer token, in the objective's own vocabulary (`nll` is [N]);
        - violation: share of branching tokens whose target is not among the top B of the valid tokens, that
          is, violates condition (3.2) of arXiv 2601.22925;
        - margin: log beta - log p of the target over branching tokens. Both are ratios of two valid tokens'
          probabilities, so they are the same whichever vocabulary the softmax is over.
        """
        with torch.no_grad():
            if tokens.answers is not None and tokens.answers.has_others:
                nll, tokens = nll[tokens.of_target], tokens.targets_only()
            scores = tokens.candidate_logits.detach()
            margin = beam_threshold(scores, self.beam_width) - pick(scores, tokens.target_column)
            margin = margin.where(tokens.is_branching, 0.0)  # a forced token cannot be pruned
            branching = tokens.is_branching.sum().to(margin.dtype)
            return {
                "nll": (nll.detach().sum(), scalar(tokens.num_answer_tokens, margin)),
                "violation": ((margin > 0).sum().to(margin.dtype), branching),
                "margin": (margin.sum(), branching),
            }


def scalar(value: float, like: Tensor) -> Tensor:
    """`value` as a scalar of the type and device of `like`."""
    return torch.tensor(float(value), dtype=like.dtype, device=like.device)
