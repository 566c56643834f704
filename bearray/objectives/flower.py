"""Flower: SFT beside a GFlowNet whose flows are training choices (Gao et al., SIGIR 2025, arXiv 2503.07377).

Each step samples one title for each window from the policy restricted to the trie. Its tokens make the states
s_0 (nothing) .. s_n (the title). With PF the policy's probability over the whole vocabulary, T the end of
sequence and R(s T) the reward of stopping at s,

    delta_i = log R(s_i T) + log PF(s_{i+1} | s_i) + log PF(T | s_{i+1}) - log R(s_{i+1} T) - log PF(T | s_i)
    L_SubTB = mean over pairs 0 <= i < j <= n of ( sum_{k=i..j-1} delta_k )^2
    L       = theta * L_SFT + (1 - theta) * L_SubTB,       both as means over windows

    log R(s_i T) = ( sum_{k<=i} flow(s_{k-1} -> s_k) + stop_flow(s_i) ) / u      `bearray.objectives.flow`
    u            = 1 + (f_title - mean f) / (max f - min f)

L_SubTB is least where the policy ends at each prefix in proportion to its reward, the share of training
choices. u is Flower's personalised reward: f is the softmax of a text-free model's scores (SASRec's) of all
titles for this user. Log-rewards are negative, so a title that the user likes, with u near 2, has a higher
reward. u is above 0; it is 1 where all scores are equal, and without `personalised`.

The pairs' sums need no loop: delta telescopes, sum_{k<j} delta_k = e_j - e_0 with

    e_i = log PF(s_i) + log PF(T | s_i) - log R(s_i T),        PF(s_i) the product of PF up to s_i
    sum_{i<j} (e_j - e_i)^2 = (n + 1) * sum_i e_i^2 - (sum_i e_i)^2 = (n + 1) * sum_i (e_i - mean e)^2

of which the last form loses no digits. There are n (n + 1) / 2 pairs, all of weight 1 (the paper's lambda).

Departures: T is end-of-sequence, where Flower stops at a newline, and titles are in quotes. Both terms are
means over windows, and L_SFT is first a mean over the title's own tokens; the released code takes SFT's mean
over the batch's tokens, which would make theta's balance depend on what else is in a batch. All of log R is
divided by u, the floor among it. Sampling is a decoding pass of its own, without gradient or dropout.

Axes: N answer tokens, A answers, R windows, J trajectories, S states of the longest one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, NegativeSpec, Objective, scalar
from bearray.objectives.ops import check_beam_width, pick
from bearray.objectives.others import answer_sums, answers_of
from bearray.objectives.tokens import Answers, AnswerTokens


def sub_trajectory_balance(energy: Tensor, real: Tensor) -> Tensor:
    """L_SubTB of each trajectory.

    Args:
        energy: [J, S] e_i; what stands in padding is not looked at.
        real: [J, S] bool, False for padding; at least two states each.

    Returns:
        [J], differentiable.
    """
    states = real.sum(1, keepdim=True)
    mean = energy.where(real, 0.0).sum(1, keepdim=True) / states
    spread = (energy - mean).where(real, 0.0).square().sum(1)
    return 2 * spread / (states[:, 0] - 1)


def preference_scale(scores: Tensor, title: Tensor) -> Tensor:
    """u of each trajectory: [J, titles] scores, [J] titles -> [J]."""
    f = scores.softmax(1)
    span = f.amax(1) - f.amin(1)
    above = (pick(f, title) - f.mean(1)) / span.where(span > 0, 1.0)
    return 1 + above.where(span > 0, 0.0)


class Flower(Objective):
    """SFT and sub-trajectory balance; needs "flow" and "stop_flow" of each token, from `Flow.of_tokens`.

    Args:
        theta: weight of SFT, in [0, 1]; the rest is the balance's.
        personalised: divide log-rewards by u; needs "user_scores" then.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "flower"
    source = "Flower, Gao et al., SIGIR 2025, arXiv 2503.07377"
    needs = frozenset({"negatives", "flow", "stop_flow", "user_scores"})
    per_window = True
    negatives = NegativeSpec("sample", 1)

    def __init__(self, *, theta: float = 0.999, personalised: bool = True, beam_width: int = 10) -> None:
        if not 0 <= theta <= 1:
            raise ConfigError(f"theta is {theta!r}; it must be in [0, 1]")
        if not personalised:
            self.needs = self.needs - {"user_scores"}
        self.theta, self.personalised = theta, personalised
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> Flower:
        return cls(theta=config.theta, personalised=config.personalised, beam_width=config.beam_width)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        log_p = pick(log_probs, column)
        answers = answers_of(tokens)
        sft = (answer_sums(-log_p, tokens) / answers.length)[answers.is_target].sum()
        energy, log_reward, real = self._states(tokens, answers, log_probs, log_p)
        balance = sub_trajectory_balance(energy, real).sum()
        windows = scalar(answers.num_windows, log_p)
        metrics = self.common_metrics(tokens, -log_p)
        metrics["subtb"] = (balance.detach(), windows)
        title = log_reward.gather(1, real.sum(1, keepdim=True) - 1)  # of the whole title, the last state
        metrics["log_reward"] = (title.sum(), scalar(len(title), log_p))
        return LossOutput(self.theta * sft + (1 - self.theta) * balance, windows, metrics)

    def _states(
        self, tokens: AnswerTokens, answers: Answers, log_probs: Tensor, log_p: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """e and log R of each trajectory's states, and which are real: [J, S] each."""
        mine = ~tokens.of_target
        trajectory = (~answers.is_target).cumsum(0)[tokens.instance[mine]] - 1
        place = (trajectory, tokens.step[mine])
        sampled = (~answers.is_target).nonzero()[:, 0]
        width = int(answers.length[sampled].max()) if len(sampled) else 1
        # Answers end with T, so each has it as the target of its last token.
        end = tokens.targets[tokens.step == answers.length[tokens.instance] - 1]  # [A]
        log_stop = pick(log_probs, end[tokens.instance])

        def table(values: Tensor) -> Tensor:
            return values.new_zeros(len(sampled), width).index_put(place, values[mine])

        def before(values: Tensor) -> Tensor:
            """The sums of what leads to each state, [J, S]."""
            return table(values).cumsum(1).roll(1, 1).index_fill(1, place[1].new_zeros(1), 0.0)

        real = table(torch.ones_like(log_p)) > 0
        flow, stop_flow = (self.extra(tokens, name).to(log_p.dtype) for name in ("flow", "stop_flow"))
        log_reward = before(flow) + table(stop_flow)
        if self.personalised:
            scores = self.window_extra(tokens, "user_scores").to(log_p.dtype)
            scale = preference_scale(scores[answers.window[sampled]], answers.title[sampled])
            log_reward = log_reward / scale[:, None]
        return before(log_p) + table(log_stop) - log_reward, log_reward, real
