"""One training step as plain PyTorch: a token batch in, loss parts out. The worker loop only schedules it.

The body of the language model runs once over every token of the micro-batch; only the states that predict an
answer token reach the output projection. With a vocabulary of 128,256 and some 12 answer tokens in 230, that
saves about 95 % of the projection's work and memory. An objective over the trie's valid next tokens needs
only their rows of the projection.

Axis letters: L tokens of the micro-batch, N answer tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from bearray.backbones.reference import Reference, as_reference
from bearray.batching import TokenBatch
from bearray.decoding.network import open_network
from bearray.forward import causal_lm, has_plain_head, hidden_states, project, row_keys
from bearray.objectives import AnswerTokens, LossOutput, Objective
from bearray.objectives.ops import pick
from bearray.objectives.tokens import valid_next_tokens
from bearray.simulation import batch_thresholds, is_deterministic
from bearray.trie import TokenTrie


class TrainStep(nn.Module):
    """Model and objective as one module, so that DDP's and ZeRO's hooks see the whole forward pass.

    Args:
        model: a causal LM, plain or with a PEFT adapter.
        objective: the loss.
        trie: the catalogue's titles.
        eos_token_id: what ends an answer.
        extras: gives the values that the objective needs beyond the trie, [N] each, for a batch.
        window_extras: as `extras`, for what belongs to windows, [R, ...] each.
        reference: which frozen model the objective's rewards are relative to, where it needs one; for
            "start" the model must have a copy of its adapter (`bearray.backbones.reference`).
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        trie: TokenTrie,
        eos_token_id: int,
        extras: Callable[[TokenBatch], dict[str, torch.Tensor]] | None = None,
        window_extras: Callable[[TokenBatch], dict[str, torch.Tensor]] | None = None,
        reference: Reference = "start",
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.trie = trie
        self.eos_token_id = eos_token_id
        self.extras = extras
        self.window_extras = window_extras
        self.reference = reference

    def forward(self, batch: TokenBatch) -> LossOutput:
        lm: Any = causal_lm(self.model)
        needs = self.objective.needs
        # The reference goes first: of its pass only a number a token is left when the other one begins.
        reference = self._reference_log_probs(batch) if "reference" in needs else None
        cache = DynamicCache() if "thresholds" in needs and self._keys_may_be_used(lm) else None
        hidden = hidden_states(self.model, batch, cache)
        tokens = self._tokens(batch, hidden)
        if self.extras is not None:
            tokens.extras = dict(self.extras(batch))
        if reference is not None:
            tokens.extras["reference"] = reference
        if "without_history" in needs:
            tokens.logits_without_history = self._logits_without_history(batch)
        if self.window_extras is not None:
            tokens.window_extras = dict(self.window_extras(batch))
        if "thresholds" in needs:
            tokens.window_extras["thresholds"] = self._thresholds(batch, hidden, cache)
        return self.objective(tokens)

    def _tokens(self, batch: TokenBatch, hidden: torch.Tensor) -> AnswerTokens:
        states = hidden[batch.position]
        candidates, valid = valid_next_tokens(self.trie, batch.nodes, self.eos_token_id)
        columns = None
        if self.objective.candidates_only and has_plain_head(self.model) and len(states):
            columns = candidates[valid].unique()
        return AnswerTokens.from_candidates(
            project(self.model, states, columns),
            batch.targets,
            candidates,
            valid,
            batch.instance,
            batch.step,
            columns=columns,
            num_answer_tokens=batch.num_answer_tokens,
            answers=batch.answers,
        )

    def _reference_log_probs(self, batch: TokenBatch) -> torch.Tensor:
        """[N] float32 log-probability of each token under the frozen reference, in the objective's
        vocabulary."""
        with as_reference(self.model, self.reference):
            tokens = self._tokens(batch, hidden_states(self.model, batch))
            log_probs, column = self.objective.log_probs(tokens)
            return pick(log_probs, column)

    def _logits_without_history(self, batch: TokenBatch) -> torch.Tensor:
        """[N, V] logits of the same answer tokens behind the prompt without a history."""
        other = batch.without_history
        if other is None:
            raise ValueError(f"objective {self.objective.name!r} needs TokenBatch.without_history")
        return project(self.model, hidden_states(self.model, other)[other.position])

    def _thresholds(
        self, batch: TokenBatch, hidden: torch.Tensor, cache: DynamicCache | None
    ) -> torch.Tensor:
        return batch_thresholds(
            open_network(self.model, self.eos_token_id),
            batch,
            self.trie,
            beam_width=self.objective.beam_width,
            normalize=self.objective.vocabulary,
            keys=None if cache is None else row_keys(self.model, batch, cache),
            hidden=hidden,
        )

    @staticmethod
    def _keys_may_be_used(lm: Any) -> bool:
        """The training pass leaves keys behind, and they are those of an evaluation."""
        return is_deterministic(lm) and not getattr(lm, "is_gradient_checkpointing", False)
