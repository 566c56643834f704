"""MSL: cross-entropy over the valid next tokens only (Wang et al., SIGIR 2025, arXiv 2504.04178).

With A_t the valid next tokens of the trie at step t and z_t the logits,

    L = mean over ALL answer tokens of -log softmax_{A_t}(z_t / tau)[y_t]

A forced token (|A_t| = 1) has loss 0 but stays in the divisor, as in the published code; the end of a title
is one.

Adaptive temperature (ATS). Over the first-token positions of the global batch, with mu+ the mean logit of
the targets, mu- and v the mean and unbiased variance of all valid logits, M the number of the trie's first
tokens:

    d = mu+ - mu-,   C = ln(eta * M),   tau_hat = (d + sqrt(max(0, d^2 - 2 C v))) / (2 C), clamped to [1.5, 5]
    tau <- (1 - rate) * tau + rate * tau_hat
    L = tau * mean over tokens with |A_t| > 1 of -log softmax_{A_t}(z_t / tau)[y_t]

Departures from the published code: the new temperature takes effect at the next optimiser step, so that one
all-reduce a step is enough and the micro-batches of a step share one loss; first-token positions are those at
step 0, not those whose number of valid tokens happens to be M.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bearray.config import Normalize, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, Objective, scalar
from bearray.objectives.ops import (
    check_beam_width,
    check_positive,
    check_rows,
    log_softmax,
    mask_out,
    pick,
)
from bearray.objectives.tokens import AnswerTokens, Trie

TAU_START, TAU_LOW, TAU_HIGH = 1.5, 1.5, 5.0


def msl_loss(logits: Tensor, targets: Tensor, *, valid: Tensor, tau: float = 1.0) -> Tensor:
    """Mean of -log softmax_valid(logits / tau) at the target.

    Args:
        logits: [N,V], any float type; computed in float32, or float64 if given.
        targets: [N] token ids.
        valid: [N,V] bool, the valid next tokens.
        tau: temperature, above 0.

    Returns:
        A differentiable scalar; entries that are not valid get gradient 0.

    Raises:
        ConfigError: `tau` not above 0.
        ValueError: no rows, shapes that do not fit, or a target that is not valid.
    """
    check_positive("tau", tau)
    check_rows(logits, targets, valid)
    return -pick(log_softmax(mask_out(logits, valid), tau), targets.long()).mean()


class MSL(Objective):
    """`msl_loss` for the training step, with a fixed or an adaptive temperature.

    Args:
        tau: fixed temperature; the adaptive one starts from 1.5.
        adaptive: ATS. eta, rate: its constants.
        vocabulary: "full" leaves an SFT loss with a temperature; ATS is defined over the trie only.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work; `bind` and `end_step`: a catalogue with eta * M <= 1.
    """

    name = "msl"
    source = "MSL, SIGIR 2025, arXiv 2504.04178"
    needs = frozenset({"trie"})

    def __init__(
        self,
        *,
        tau: float = 1.0,
        adaptive: bool = False,
        vocabulary: Normalize = "trie",
        beam_width: int = 10,
        eta: float = 0.25,
        rate: float = 0.05,
    ) -> None:
        if adaptive and vocabulary != "trie":
            raise ConfigError('objective.adaptive needs objective.vocabulary "trie"')
        self.adaptive = adaptive
        self.tau = TAU_START if adaptive else check_positive("tau", tau)
        self.vocabulary = vocabulary
        self.positions = "branching" if vocabulary == "trie" else "all"
        self.candidates_only = vocabulary == "trie"
        self.beam_width = check_beam_width(beam_width)
        self.eta = check_positive("eta", eta)
        self.rate = check_positive("rate", rate)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> MSL:
        return cls(
            tau=config.tau,
            adaptive=config.adaptive,
            vocabulary=config.vocabulary,
            beam_width=config.beam_width,
        )

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens, self.tau)
        nll = -pick(log_probs, column)
        metrics = self.common_metrics(tokens, nll)
        if not self.adaptive:
            return LossOutput(nll.sum(), scalar(tokens.num_answer_tokens, nll), metrics)
        weight = tokens.is_branching.sum().to(nll.dtype)
        metrics["tau"] = (weight * self.tau, weight)
        return LossOutput(self.tau * nll.sum(), weight, metrics, self._stats(tokens))

    def weight_of(self, num_tokens: int, num_branching: int, num_windows: int = 0) -> float:
        return float(num_branching if self.adaptive else num_tokens)

    def bind(self, trie: Trie) -> None:
        if self.adaptive:
            self._log_eta_m(int(trie.child_count(torch.zeros(1, dtype=torch.long))))

    @torch.no_grad()
    def _stats(self, tokens: AnswerTokens) -> Tensor:
        """[5] first-token rows, sum of targets' logits; number, sum, sum of squares of valid logits.

        In float64, where the difference of squares keeps eight digits of the variance at logits of 10,000.
        """
        first = (tokens.step == 0)[:, None] & tokens.candidate_valid
        logits = tokens.candidate_logits.detach().double().where(first, 0.0)
        targets = pick(logits, tokens.target_column)
        rows = (tokens.step == 0).sum()
        parts = [rows.double(), targets.sum(), first.sum().double(), logits.sum(), logits.square().sum()]
        return torch.stack(parts)

    def end_step(self, stats: Tensor) -> None:
        """Move the temperature by the statistics of the whole optimiser step; no first token, no change."""
        if not self.adaptive:
            return
        rows, target_sum, count, total, squares = stats.tolist()
        if rows == 0:
            return
        log_eta_m = self._log_eta_m(round(count / rows))
        gap = target_sum / rows - total / count
        variance = max(0.0, (squares - total * total / count) / (count - 1))
        root = math.sqrt(max(0.0, gap * gap - 2 * log_eta_m * variance))
        tau_hat = min(TAU_HIGH, max(TAU_LOW, (gap + root) / (2 * log_eta_m)))
        self.tau = (1 - self.rate) * self.tau + self.rate * tau_hat

    def _log_eta_m(self, first_tokens: int) -> float:
        if self.eta * first_tokens <= 1:
            raise ConfigError(
                f"MSL's adaptive temperature needs eta * (number of first tokens) above 1, but this "
                f"catalogue is too small: its titles start with {first_tokens} different token(s) and eta is "
                f"{self.eta:g}; set objective.adaptive to false and choose objective.tau"
            )
        return math.log(self.eta * first_tokens)

    def state_dict(self) -> dict[str, float]:
        return {"tau": self.tau} if self.adaptive else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        if self.adaptive:
            self.tau = float(state["tau"])
        else:
            super().load_state_dict(state)
