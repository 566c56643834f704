"""The answer tokens of a micro-batch, as losses see them.

Each row is one token of one answer, with the tokens that could have come in its place according to the
trie, as a padded table: never a dense [N,V] mask. A window has one answer, its target, or several: then
`Answers` says whose they are. Axes: N answer tokens (rows), V vocabulary, K valid next tokens of the widest
trie node among the rows, A answers, R windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bearray.objectives.ops import mask_out, pick


class Trie(Protocol):
    """What a loss asks of a token trie; `bearray.trie.TokenTrie` has it."""

    def candidates(self, nodes: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
        """Valid next tokens of `nodes` [N]: token ids [N,K] and which of them are real [N,K]."""

    def child_count(self, nodes: Tensor) -> Tensor:
        """Number of valid next tokens of `nodes` [N] -> [N]."""


def valid_next_tokens(trie: Trie, nodes: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
    """`Trie.candidates`, also of no nodes: a worker whose share of the batch is empty has none."""
    if len(nodes):
        return trie.candidates(nodes, eos_token_id)
    empty = nodes.new_zeros((0, 1), dtype=torch.long)
    return empty, empty.bool()


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a micro-batch: the target of each window, and the others that the objective asked for.

    A window's answers stand side by side, its target first.
    """

    title: Tensor
    """[A] int64, which title each answer spells."""
    window: Tensor
    """[A] int64, the window (row of the micro-batch) that it answers."""
    is_target: Tensor
    """[A] bool: the right title of its window."""
    length: Tensor
    """[A] int64, its tokens with the end of sequence, forced ones included."""
    score: Tensor
    """[A] float32, the log-probability under which it was decoded; 0 for an answer that was not."""
    num_windows: int
    """R."""

    @property
    def has_others(self) -> bool:
        """Some window has more than its target."""
        return len(self.title) > self.num_windows

    def to(self, device: torch.device | str) -> Answers:
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_windows"}
        moved = {name: x.to(device, non_blocking=True) for name, x in columns.items()}
        return Answers(**moved, num_windows=self.num_windows)


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
    """What the objective's `needs` ask for beyond the trie, by name: a number for each row, [N]."""
    answers: Answers | None = None
    """Whose answers these are; None: each is the target of a window of its own."""
    window_extras: dict[str, Tensor] = field(default_factory=dict)
    """As `extras`, for what belongs to windows: [R, ...]."""

    logits_without_history: Tensor | None = None
    """[N,V] logits of the same tokens behind the prompt without a history, for objectives that contrast the
    two ("without_history" in `needs`)."""

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
        answers: Answers | None = None,
        window_extras: dict[str, Tensor] | None = None,
    ) -> AnswerTokens:
        """Look up the valid next tokens of each row.

        Args:
            logits: [N,V]. targets: [N] token ids. trie_nodes: [N] node reached before each token.
            trie: the catalogue's trie, on the device of `trie_nodes`.
            eos_token_id: what follows a complete title.
            instance: [N]. step: [N].
            num_answer_tokens: as the field; None means N. extras, answers, window_extras: as the fields.

        Raises:
            ValueError: shapes that do not fit, or a target that cannot follow its node.
        """
        candidates, valid = valid_next_tokens(trie, trie_nodes, eos_token_id)
        return cls.from_candidates(
            logits,
            targets,
            candidates,
            valid,
            instance,
            step,
            num_answer_tokens=num_answer_tokens,
            extras=extras,
            answers=answers,
            window_extras=window_extras,
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
        answers: Answers | None = None,
        window_extras: dict[str, Tensor] | None = None,
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
            answers=answers.to(device) if answers is not None else None,
            window_extras={name: x.to(device) for name, x in (window_extras or {}).items()},
        )

    @property
    def skipped(self) -> int:
        """Forced answer tokens that are not among the rows."""
        return self.num_answer_tokens - len(self.targets)

    @cached_property
    def candidate_logits(self) -> Tensor:
        """[N,K] logits of the valid next tokens in float32 or float64, `-inf` for padding; differentiable."""
        return mask_out(self.logits.gather(1, self.candidates), self.candidate_valid)

    @property
    def of_target(self) -> Tensor:
        """[N] bool: the row belongs to the target of its window."""
        if self.answers is None:
            return torch.ones_like(self.is_branching)
        return self.answers.is_target[self.instance]

    def take(self, rows: Tensor, *, num_answer_tokens: int) -> AnswerTokens:
        """Some of the rows, by bool mask [N] or index.

        Args:
            num_answer_tokens: of the answers that they belong to, forced ones included.
        """
        per_row = {
            name: getattr(self, name)[rows]
            for name in ("logits", "targets", "candidates", "candidate_valid", "target_column", "instance",
                         "step", "is_branching")
        }  # fmt: skip
        extras = {name: x[rows] for name, x in self.extras.items()}
        other = self.logits_without_history
        return replace(
            self,
            **per_row,
            extras=extras,
            num_answer_tokens=num_answer_tokens,
            logits_without_history=None if other is None else other[rows],
        )

    def targets_only(self) -> AnswerTokens:
        """The rows of the windows' targets: what a loss is given that asked for no other answers."""
        if self.answers is None or not self.answers.has_others:
            return self
        of_targets = int(self.answers.length[self.answers.is_target].sum())
        return self.take(self.of_target, num_answer_tokens=of_targets)
