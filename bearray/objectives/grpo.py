"""Group-relative policy optimisation on constrained beams, after MiniOneRec (arXiv 2510.24431).

The G rollouts of a window are the titles that beam search over the trie finds with the policy as it stands.
With r their rank rewards (`bearray.objectives.rewards`), pi the probability of token t of rollout i over the
whole vocabulary, and pi_ref that of a frozen reference,

    A_i  = (r_i - mean r) / (std r + 1e-4)                                        over the window's rollouts
    rho  = pi(y_it) / sg[pi(y_it)]                                                sg: held constant
    d    = log pi_ref(y_it) - log pi(y_it),       KL = exp(d) - d - 1             the "k3" estimate
    L    = mean over windows of mean_i of mean_t of ( -A_i * rho + kl_weight * KL )

The value of rho is 1 and its gradient that of log pi, so -A * rho is policy gradient, and L stays near 0
while the policy learns: watch `rollout_ndcg`. PPO's clip, min(rho A, clip(rho, 1 - e, 1 + e) A), is left out
because it can never act: rollouts serve one step only, that of the weights which wrote them, where rho is 1.

std is the sample's, divided by G - 1, as the released code has it; 0 for a single rollout. A window whose
rollouts all have one reward (the target was missed) is only held to the reference.

Departures: rollouts and target are titles in words, not semantic ids, and end with end-of-sequence. Where d
is above 10 nats, KL goes on along its tangent, since exp(d) overflows. The reference is that of
`objective.reference`; the released code moves it towards the policy as training goes on.
"""

from __future__ import annotations

from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, NegativeSpec, Objective, scalar
from bearray.objectives.ops import check_beam_width, check_weight, pick
from bearray.objectives.others import Others, answers_of
from bearray.objectives.rewards import rank_rewards, rollout_metrics
from bearray.objectives.tokens import AnswerTokens

_STRAIGHT_FROM = 10.0
"""Nats of d above which KL is continued along its tangent."""


def kl_estimate(log_p: Tensor, reference: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = reference - log_p, elementwise; above 10 nats its tangent there."""
    d = reference - log_p
    near = d.clamp_max(_STRAIGHT_FROM)
    return near.exp() * (1 + d - near) - d - 1


def group_advantages(rewards: Tensor, real: Tensor) -> Tensor:
    """(r - mean) / (std + 1e-4) in each row, over its real columns: [R', M] -> [R', M], 0 for padding.

    std divides by one less than the number of real columns; it is 0 where there is one.
    """
    count = real.sum(1, keepdim=True)
    centred = (rewards - (rewards * real).sum(1, keepdim=True) / count) * real
    std = (centred.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return centred / (std + 1e-4)


def check_rollouts(value: int) -> int:
    """`value` if it is at least 1, else `ConfigError`."""
    if value < 1:
        raise ConfigError(f"rollouts is {value!r}; it must be at least 1")
    return value


class GRPO(Objective):
    """Policy gradient by rewards relative to the window's other rollouts.

    Args:
        rollouts: G, titles that beam search keeps for each window.
        kl_weight: weight of the divergence from the reference, at least 0.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "grpo"
    source = "after MiniOneRec, Kong et al. 2025, arXiv 2510.24431"
    needs = frozenset({"reference", "negatives"})
    per_window = True

    def __init__(self, *, rollouts: int = 16, kl_weight: float = 1e-3, beam_width: int = 10) -> None:
        self.negatives = NegativeSpec("rollout", check_rollouts(rollouts))
        self.kl_weight = check_weight("kl_weight", kl_weight)
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> GRPO:
        return cls(rollouts=config.rollouts, kl_weight=config.kl_weight, beam_width=config.beam_width)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        log_p = pick(log_probs, column)
        answers = answers_of(tokens)
        rollouts = Others.of(answers)
        advantage = group_advantages(rank_rewards(rollouts), rollouts.real).to(log_p.dtype)
        # Of each answer: its advantage, and the share of one of its tokens in the window's mean.
        of_answer, share = log_p.new_zeros(len(answers.title)), log_p.new_zeros(len(answers.title))
        there = rollouts.answer[rollouts.real]
        count = rollouts.real.sum(1, keepdim=True).expand_as(rollouts.real)[rollouts.real]
        of_answer[there] = advantage[rollouts.real]
        share[there] = 1 / (count * answers.length[there]).to(share.dtype)
        ratio = (log_p - log_p.detach()).exp()
        kl = kl_estimate(log_p, self.extra(tokens, "reference").to(log_p.dtype))
        share = share[tokens.instance]  # 0 for the targets' own tokens, which no rollout wrote
        total = (share * (self.kl_weight * kl - of_answer[tokens.instance] * ratio)).sum()
        windows = scalar(answers.num_windows, log_p)
        metrics = self.common_metrics(tokens, -log_p) | rollout_metrics(rollouts, windows)
        metrics["kl"] = ((share * kl).sum().detach(), windows)
        return LossOutput(total, windows, metrics)
