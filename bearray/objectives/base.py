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
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from bearray.config import Normalize, ObjectiveConfig
from bearray.objectives.ops import beam_threshold, log_softmax, mask_out, pick

Metric = tuple[Tensor, Tensor]
"""A sum and the count it is divided by, once both are added up over micro-batches and workers."""


class Trie(Protocol):
    """What a loss asks of a token trie; `bearray.trie.TokenTrie` has it."""

    def candidates(self, nodes: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
        """Valid next tokens of `nodes` [N]: token ids [N,K] and which of them are real [N,K]."""

    def child_count(self, nodes: Tensor) -> Tensor:
        """Number of valid next tokens of `nodes` [N] -> [N]."""


@dataclass
class AnswerTokens:
    """The answer tokens of a micro-batch, one a row. Build it with `build` or `from_candidates`."""

    logits: Tensor
    """[N,V] logits that predict each token; any float type (losses compute in float32, or float64)."""
    targets: Tensor
    """[N] the right token, as a column of `logits`."""
    candidates: Tensor
    """[N,K] the valid next tokens, as columns of `logits`; padded with 0."""
    candidate_valid: Tensor
    """[N,K] bool, False for padding."""
    target_column: Tensor
    """[N] where the target is in `candidates`."""
    instance: Tensor
    """[N] which answer of the micro-batch the token belongs to."""
    step: Tensor
    """[N] position of the token in its answer, from 0."""
    is_branching: Tensor
    """[N] bool: more than one valid next token."""
    num_answer_tokens: int
    """Answer tokens of the micro-batch: N, and the forced ones that were left out of the rows because the
    objective's `positions` is "branching"."""
    partial: bool = False
    """`logits` has only some of the vocabulary's columns, enough for the candidates."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """What the objective's `needs` ask for beyond the trie, by name."""

    @classmethod
    def build(
        cls,
        logits: Tensor,
        targets: Tensor,
        trie_nodes: Tensor,
        trie: Trie,
        eos_token_id: int,
        instance: Tensor,
        step: Tensor,
        *,
        num_answer_tokens: int | None = None,
        extras: dict[str, Tensor] | None = None,
    ) -> AnswerTokens:
        """Look up the valid next tokens of each row.

        Args:
            logits: [N,V]. targets: [N] token ids. trie_nodes: [N] node reached before each token.
            trie: the catalogue's trie, on the device of `trie_nodes`.
            eos_token_id: what follows a complete title.
            instance: [N]. step: [N].
            num_answer_tokens: as the field; None means N. extras: as the field.

        Raises:
            ValueError: shapes that do not fit, or a target that cannot follow its node.
        """
        if len(trie_nodes):
            candidates, valid = trie.candidates(trie_nodes, eos_token_id)
        else:  # a worker whose share of the batch is empty
            candidates = trie_nodes.new_zeros((0, 1), dtype=torch.long)
            valid = torch.zeros((0, 1), dtype=torch.bool, device=trie_nodes.device)
        return cls.from_candidates(
            logits,
            targets,
            candidates,
            valid,
            instance,
            step,
            num_answer_tokens=num_answer_tokens,
            extras=extras,
        )

    @classmethod
    def from_candidates(
        cls,
        logits: Tensor,
        targets: Tensor,
        candidates: Tensor,
        candidate_valid: Tensor,
        instance: Tensor,
        step: Tensor,
        *,
        columns: Tensor | None = None,
        num_answer_tokens: int | None = None,
        extras: dict[str, Tensor] | None = None,
    ) -> AnswerTokens:
        """As `build`, from valid next tokens that are already known.

        Args:
            candidates: [N,K] token ids. candidate_valid: [N,K] bool.
            columns: [C] ascending token ids that the columns of `logits` [N,C] stand for; None: all of the
                vocabulary. With it, an objective over the trie's vocabulary needs only the output rows of
                tokens that are valid somewhere in the batch.

        Raises:
            ValueError: shapes that do not fit, a target that is not among its candidates, or a candidate
                that is not among `columns`.
        """
        device, rows = logits.device, logits.shape[0]
        moved = [x.to(device) for x in (targets, candidates, candidate_valid, instance, step)]
        targets, candidates, candidate_valid, instance, step = moved
        for name, x in (("targets", targets), ("instance", instance), ("step", step)):
            if x.shape != (rows,):
                raise ValueError(f"{name} must be [{rows}], one for each row of logits; got {tuple(x.shape)}")
        if candidates.shape != candidate_valid.shape or candidates.dim() != 2 or len(candidates) != rows:
            raise ValueError(
                f"candidates and candidate_valid must both be [{rows},K]; "
                f"got {tuple(candidates.shape)} and {tuple(candidate_valid.shape)}"
            )
        matches = (candidates == targets[:, None]) & candidate_valid
        found = matches.any(dim=1)
        if not bool(found.all()):
            row = int((~found).nonzero()[0])
            raise ValueError(
                f"answer token {int(targets[row])} of row {row} (instance {int(instance[row])}, step "
                f"{int(step[row])}) is not a valid next token of its trie node"
            )
        if columns is not None:
            if columns.shape != (logits.shape[1],):
                raise ValueError(f"columns must be [{logits.shape[1]}]; got {tuple(columns.shape)}")
            columns = columns.to(device)
            positions = torch.searchsorted(columns, candidates).clamp_(max=len(columns) - 1)
            if not bool(((columns[positions] == candidates) | ~candidate_valid).all()):
                raise ValueError("a valid next token is missing from columns")
            candidates = positions
        total = rows if num_answer_tokens is None else num_answer_tokens
        if total < rows:
            raise ValueError(f"num_answer_tokens is {total}, but there are {rows} rows")
        target_column = matches.to(torch.uint8).argmax(dim=1)
        return cls(
            logits=logits,
            targets=pick(candidates, target_column),
            candidates=candidates,
            candidate_valid=candidate_valid,
            target_column=target_column,
            instance=instance,
            step=step,
            is_branching=candidate_valid.sum(dim=1) > 1,
            num_answer_tokens=total,
            partial=columns is not None,
            extras=extras or {},
        )

    @property
    def skipped(self) -> int:
        """Forced answer tokens that are not among the rows."""
        return self.num_answer_tokens - len(self.targets)

    @cached_property
    def candidate_logits(self) -> Tensor:
        """[N,K] logits of the valid next tokens in float32 or float64, `-inf` for padding; differentiable."""
        return mask_out(self.logits.gather(1, self.candidates), self.candidate_valid)


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
    """What the step must provide beyond logits: "trie", or names of `AnswerTokens.extras`."""
    vocabulary: Normalize = "full"
    """The softmax is over the trie's valid next tokens, or over all tokens."""
    positions: Literal["all", "branching"] = "all"
    """Which answer tokens must be among the rows. "branching": forced tokens have loss and gradient that do
    not depend on the logits, so they need no logits; `AnswerTokens.num_answer_tokens` still counts them."""
    weight_from_forward: bool = False
    """`LossOutput.weight` depends on the logits, so that `weight_of` cannot tell it beforehand."""
    beam_width: int = 10
    """The B of the pruning metrics."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: ObjectiveConfig) -> Objective:
        """Build the objective from the fields of `config` that it uses."""

    @abstractmethod
    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        """The loss of a micro-batch."""

    def weight_of(self, num_tokens: int, num_branching: int) -> float:
        """`LossOutput.weight` of a micro-batch before its forward pass.

        Args:
            num_tokens: its answer tokens, forced ones included.
            num_branching: those with more than one valid next token.

        Raises:
            RuntimeError: `weight_from_forward` is True.
        """
        if self.weight_from_forward:
            raise RuntimeError(
                f"the weight of {self.name!r} depends on the logits; take it from LossOutput.weight"
            )
        return float(num_tokens)

    # Optional hooks: an objective without state has nothing to do in them.

    def bind(self, trie: Trie) -> None:  # noqa: B027
        """Called once before training, with the catalogue's trie.

        Raises:
            ConfigError: the objective cannot work on this catalogue.
        """

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

    def common_metrics(self, tokens: AnswerTokens, nll: Tensor) -> dict[str, Metric]:
        """The metrics of every objective.

        - nll: -log p of the target per answer token, in the objective's own vocabulary (`nll` is [N]);
        - violation: share of branching tokens whose target is not among the top B of the valid tokens, that
          is, violates condition (3.2) of arXiv 2601.22925;
        - margin: log beta - log p of the target over branching tokens. Both are ratios of two valid tokens'
          probabilities, so they are the same whichever vocabulary the softmax is over.
        """
        with torch.no_grad():
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
