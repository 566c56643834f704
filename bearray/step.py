"""One training step as plain PyTorch: a token batch in, loss parts out. The worker loop only schedules it.

The body of the language model runs once over prompt and answer; only the answer positions that the objective
asks for reach the output projection. With a vocabulary of 128,256 and some 12 answer tokens in 230, that
saves about 95 % of the projection's work and memory.

Axis letters: R rows, T tokens of the longest row, N answer tokens, D hidden size, V vocabulary.
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
from bearray.errors import ModelError
from bearray.objectives import AnswerTokens, LossOutput, Objective
from bearray.objectives.ops import pick
from bearray.simulation import batch_thresholds, is_deterministic
from bearray.trie import TokenTrie


def causal_lm(model: nn.Module) -> nn.Module:
    """The Hugging Face causal LM inside a PEFT wrapper, or the model itself."""
    wrapper: Any = model
    unwrapped: nn.Module = wrapper.get_base_model() if hasattr(model, "get_base_model") else model
    return unwrapped


def project(model: nn.Module, hidden_ND: torch.Tensor) -> torch.Tensor:
    """Logits [N, V] of hidden states [N, D] that the model's body returned, as the model itself would make
    them."""
    lm: Any = causal_lm(model)
    logits = lm.get_output_embeddings()(hidden_ND)
    cap = getattr(lm.config, "final_logit_softcapping", None)  # Gemma 2 and its kin
    return logits if not cap else torch.tanh(logits / cap) * cap


@torch.no_grad()
def check_projection(model: nn.Module, device: torch.device | str) -> None:
    """Make sure that body and projection give the model's own logits; some families do more in between.

    Raises:
        ModelError: the model changes its logits in a way that `project` does not know.
    """
    lm: Any = causal_lm(model)
    was_training = lm.training
    lm.eval()
    ids = torch.arange(1, 5, device=device).remainder(lm.config.vocab_size)[None]
    hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
    ours, theirs = project(lm, hidden[0]).float(), lm(input_ids=ids, use_cache=False).logits[0].float()
    lm.train(was_training)
    tolerance = 1e-3 if ours.dtype == torch.float32 else 5e-2
    if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())):
        raise ModelError(
            f"{type(lm).__name__} scales or shifts its logits in a way that bearray does not know; "
            "Llama, Qwen2, Qwen3, Mistral and Gemma-like models work"
        )


def hidden_states(model: nn.Module, batch: TokenBatch, cache: Any = None) -> torch.Tensor:
    """Hidden states [R * T, D] after the last norm; each answer's are those it would have behind its prompt
    alone.

    Rows with one answer are read causally. Rows with several have a mask in which a token sees its prompt
    and the tokens before it in its own answer, and count positions from the prompt's end in each answer.

    Args:
        cache: a `transformers` cache that is to receive the keys and values; None for none.

    Raises:
        ModelError: several answers, and a model whose attention takes no mask of one's own.
    """
    lm: Any = causal_lm(model)
    if batch.branch is None:
        mask: Any = batch.attention_mask
    else:
        network = open_network(model, eos_token_id=0)
        query, key = batch.branch[:, :, None], batch.branch[:, None, :]
        column = torch.arange(batch.branch.shape[1], device=batch.branch.device)
        # Padding sees the prompt, so that no row of the softmax is empty, and is seen by padding alone.
        visible = (column <= column[:, None]) & ((key == 0) | (key == query))
        assert batch.position_ids is not None
        distance = batch.position_ids[:, :, None] - batch.position_ids[:, None, :]
        mask = network.mask(visible, distance, network.dtype)
    states: torch.Tensor = lm.base_model(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return states.flatten(0, 1)


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
        keep = torch.arange(len(batch.targets), device=batch.targets.device)
        if self.objective.positions == "branching":
            keep = keep[self.trie.child_count(batch.nodes) > 1]
        # The reference goes first: of its pass only a number a token is left when the other one begins.
        reference = self._reference_log_probs(batch, keep) if "reference" in self.objective.needs else None
        simulates = "thresholds" in self.objective.needs
        cache = DynamicCache() if simulates and self._keys_may_be_used(lm) else None
        hidden = hidden_states(self.model, batch, cache)
        extras = dict(self.extras(batch)) if self.extras else {}
        if simulates:
            extras["thresholds"] = self._thresholds(batch, hidden, cache)
        tokens = self._tokens(batch, keep, hidden)
        tokens.extras = {name: x[keep] for name, x in extras.items()}
        if reference is not None:
            tokens.extras["reference"] = reference
        if self.window_extras is not None:
            tokens.window_extras = self.window_extras(batch)
        return self.objective(tokens)

    def _tokens(self, batch: TokenBatch, keep: torch.Tensor, hidden: torch.Tensor) -> AnswerTokens:
        return AnswerTokens.build(
            project(causal_lm(self.model), hidden[batch.position[keep]]),
            batch.targets[keep],
            batch.nodes[keep],
            self.trie,
            self.eos_token_id,
            batch.instance[keep],
            batch.step[keep],
            num_answer_tokens=len(batch.targets),
            answers=batch.answers,
        )

    def _reference_log_probs(self, batch: TokenBatch, keep: torch.Tensor) -> torch.Tensor:
        """[N] float32 log-probability of each kept token under the frozen reference, in the objective's
        vocabulary."""
        with as_reference(self.model, self.reference):
            tokens = self._tokens(batch, keep, hidden_states(self.model, batch))
            log_probs, column = self.objective.log_probs(tokens)
            return pick(log_probs, column)

    def _thresholds(
        self, batch: TokenBatch, hidden: torch.Tensor, cache: DynamicCache | None
    ) -> torch.Tensor:
        layers: list[Any] = [] if cache is None else list(cache.layers)
        return batch_thresholds(
            open_network(self.model, self.eos_token_id),
            batch,
            self.trie,
            beam_width=self.objective.beam_width,
            normalize=self.objective.vocabulary,
            keys=[(layer.keys, layer.values) for layer in layers] or None,
            hidden=hidden,
        )

    @staticmethod
    def _keys_may_be_used(lm: Any) -> bool:
        """The training pass leaves keys behind, and they are those of an evaluation."""
        return is_deterministic(lm) and not getattr(lm, "is_gradient_checkpointing", False)
