"""Best-of-N alignment with a target that moves, in the spirit of BLADE (Chen et al., SIGIR 2026, arXiv
2605.04559). This is our reading: of BLADE only the abstract was at hand, and no formula.

What is known of BLADE: the policy imitates best-of-N search for list-wise rewards; a target made from the
frozen reference alone fades as the policy improves; so the target is Bayesian, a static prior fused with
the evidence of the current policy's rollouts. Our reading, for each window:

Candidates Y: the target and the rollouts of beam search with the policy as it stands, each title once. r(y):
the rank reward (`bearray.objectives.rewards`); the target has 1, also where the search missed it.

    p0(y) = pi_ref(y|x) / sum_Y pi_ref,   p(y) = pi(y|x) / sum_Y pi     over titles, summed over their tokens
    m(y)  = p0(y)                                        update "static": the reference's distribution
    m(y)  = (n0 p0(y) + G p(y)) / (n0 + G)               update "dynamic", p held constant

The dynamic m is the posterior mean of a distribution over Y with a Dirichlet prior, of mean p0 and worth n0
observations, after the G rollouts, each of which is counted by the policy's own probabilities. With F(r) the
share of m whose reward is at most r, and F-(r) the share below it,

    q(y) ~ p0(y) * (F(r)^N - F-(r)^N) / (F(r) - F-(r)),   r = r(y)
         = p0(y) * F(r)^(N-1) * (1 + s + .. + s^(N-1)),   s = F-(r) / F(r)
    L = mean over windows of -sum_Y q(y) log p(y),        q held constant

q is the law of the best of N draws: the reference's, reweighted by how likely such a reward is to be the best
of N draws from m, per draw. For rewards without ties it is the density N F^(N-1) pi_ref of the literature; on
a few titles, F jumps, and F^(N-1) alone would count a jump by its upper end: of 17 titles with one right
one of mass 0.01, it leaves 0.012 to the right one where the best of 16 draws is right with 0.149.

Extremes: with static m, q is exactly the law of the best of N draws from p0; n0 to infinity makes the
dynamic target the static one; N = 1 gives p0, so the loss only holds the policy to the reference; titles of
equal reward keep the reference's proportions. As the policy's mass on the target grows, so does q's.

Axes: A answers, R' windows with rollouts, M candidates of the window that has most, the target first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bearray.config import BestOfUpdate, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, NegativeSpec, Objective, scalar
from bearray.objectives.grpo import check_rollouts
from bearray.objectives.ops import check_beam_width, check_positive, pick
from bearray.objectives.others import Others, answer_sums, answers_of
from bearray.objectives.rewards import rank_rewards, rollout_metrics
from bearray.objectives.tokens import AnswerTokens


def best_of_n_target(log_prior: Tensor, log_mass: Tensor, rewards: Tensor, n: int) -> Tensor:
    """log q of each candidate; see the module's formula.

    Args:
        log_prior: [R', M] log p0, -inf for padding; every row sums to 1.
        log_mass: [R', M] log m, likewise.
        rewards: [R', M] r; not looked at where there is padding.
        n: N, at least 1.

    Returns:
        [R', M], -inf for padding.
    """
    other = rewards[:, None, :]
    own = rewards[:, :, None]

    def log_share(among: Tensor) -> Tensor:
        """log of m's mass on `among` [R', M, M]: [R', M]."""
        return log_mass[:, None, :].masked_fill(~among, -torch.inf).logsumexp(2)

    upto, below = log_share(other <= own), log_share(other < own)
    upto = upto.masked_fill(log_prior == -torch.inf, 0.0)  # padding: any finite number
    ratio = (below - upto).exp()  # s, in [0, 1)
    powers = ratio[..., None] ** torch.arange(n, device=ratio.device)  # from 1 on, so the sum is at least 1
    return (log_prior + (n - 1) * upto + powers.sum(-1).log()).log_softmax(1)


class BestOfN(Objective):
    """Cross-entropy of the policy over the candidates against the best-of-N target.

    Args:
        rollouts: G, titles that beam search keeps for each window.
        best_of: N.
        update: whether the target follows the policy.
        prior_weight: n0, above 0; only with update "dynamic".
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "best_of_n"
    source = "our reading of BLADE, Chen et al., SIGIR 2026, arXiv 2605.04559"
    needs = frozenset({"reference", "negatives"})
    per_window = True

    def __init__(
        self,
        *,
        rollouts: int = 16,
        best_of: int = 16,
        update: BestOfUpdate = "dynamic",
        prior_weight: float = 16.0,
        beam_width: int = 10,
    ) -> None:
        self.negatives = NegativeSpec("rollout", check_rollouts(rollouts))
        if best_of < 1:
            raise ConfigError(f"best_of is {best_of!r}; it must be at least 1")
        if update not in ("static", "dynamic"):
            raise ConfigError(f'update is {update!r}; it must be "static" or "dynamic"')
        self.best_of, self.update = best_of, update
        self.prior_weight = check_positive("prior_weight", prior_weight)
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> BestOfN:
        return cls(
            rollouts=config.rollouts,
            best_of=config.best_of,
            update=config.best_of_update,
            prior_weight=config.prior_weight,
            beam_width=config.beam_width,
        )

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        log_p = pick(log_probs, column)
        answers = answers_of(tokens)
        rollouts = Others.of(answers)
        # The target stands first; the rollout that spells it is the same title again.
        answer = torch.cat([rollouts.target[:, None], rollouts.answer], dim=1)
        first = torch.ones_like(rollouts.target, dtype=torch.bool)[:, None]
        real = torch.cat([first, rollouts.real & ~rollouts.is_right], dim=1)
        ranked = rank_rewards(rollouts)
        rewards = torch.cat([torch.ones_like(ranked[:, :1]), ranked], dim=1)

        def over_candidates(values: Tensor) -> Tensor:
            """log of a distribution over Y from log-probabilities of tokens [N]: [R', M]."""
            table = answer_sums(values, tokens)[answer].masked_fill(~real, -torch.inf)
            return table.log_softmax(1)

        log_policy = over_candidates(log_p)
        with torch.no_grad():
            prior = over_candidates(self.extra(tokens, "reference").to(log_p.dtype))
            q = best_of_n_target(prior, self._mass(prior, log_policy, rollouts), rewards, self.best_of).exp()
        losses = -(q * log_policy.masked_fill(~real, 0.0)).sum(1)
        windows = scalar(answers.num_windows, log_p)
        metrics = self.common_metrics(tokens, -log_p) | rollout_metrics(rollouts, windows)
        metrics["target_mass"] = (q[:, 0].sum(), windows)
        metrics["policy_mass"] = (log_policy[:, 0].detach().exp().sum(), windows)
        return LossOutput(losses.sum(), windows, metrics)

    def _mass(self, prior: Tensor, log_policy: Tensor, rollouts: Others) -> Tensor:
        """log m, [R', M]."""
        if self.update == "static":
            return prior
        count = rollouts.real.sum(1, keepdim=True).to(prior)  # G, the rollout of the target among them
        both = torch.logaddexp(math.log(self.prior_weight) + prior, count.log() + log_policy)
        return both - (self.prior_weight + count).log()
