"""Rank rewards, GRPO and best-of-N: against loops over single numbers with autograd, and at extremes."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import GRPO, BestOfN, Objective, at_least, make_objective
from bearray.objectives.best_of_n import best_of_n_target
from bearray.objectives.grpo import group_advantages, kl_estimate
from bearray.objectives.others import Others
from bearray.objectives.rewards import rank_rewards

from .windows import EOS, TITLES, Windows, log_prob, windows

torch.set_num_threads(1)

FOUND = [[1, 2, 6, 1, 3], [3, 5, 0], [6, 6, 0, 2, 4], [0, 0], [2, 5]]
"""Targets, then rollouts: found third, missed, found first, found alone, missed by the only one."""


def naive_rewards(target: int, rollouts: list[int]) -> list[float]:
    if target not in rollouts:
        return [0.0] * len(rollouts)
    discounts = [1 / math.log2(i + 2) for i in range(len(rollouts))]
    return [1.0 if t == target else -d / sum(discounts) for t, d in zip(rollouts, discounts, strict=True)]


def naive_grpo(data: Windows, kl_weight: float) -> Tensor:
    answers = list(data.rows())
    losses = []
    for w, titles in enumerate(data.titles):
        rewards = naive_rewards(titles[0], titles[1:])
        mean = sum(rewards) / len(rewards)
        std = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
        own = [rows for window, _, rows in answers if window == w][1:]
        of_rollouts = []
        for title, reward, rows in zip(titles[1:], rewards, own, strict=True):
            advantage = (reward - mean) / (std + 1e-4)
            terms = []
            for row, token in zip(rows, [*TITLES[title], EOS], strict=True):
                log_p = log_prob(data.logits[row], token)
                d = data.extras["reference"][row] - log_p
                ratio = torch.exp(log_p - log_p.item())
                terms.append(-advantage * ratio + kl_weight * (torch.exp(d) - d - 1))
            of_rollouts.append(sum(terms) / len(terms))
        losses.append(sum(of_rollouts) / len(of_rollouts))
    return sum(losses) / len(losses)


def naive_best_of_n(data: Windows, n: int, prior_weight: float | None) -> Tensor:
    """`prior_weight` None: static."""
    answers = list(data.rows())
    losses = []
    for w, titles in enumerate(data.titles):
        reward = dict(zip(titles[1:], naive_rewards(titles[0], titles[1:]), strict=True)) | {titles[0]: 1.0}
        policy, prior = {}, {}
        for window, title, rows in answers:
            if window == w and title not in policy:
                own = list(zip(rows, [*TITLES[title], EOS], strict=True))
                policy[title] = torch.exp(sum(log_prob(data.logits[r], t) for r, t in own))
                prior[title] = math.exp(sum(float(data.extras["reference"][r]) for r in rows))
        policy = {t: p / sum(policy.values()) for t, p in policy.items()}
        prior = {t: p / sum(prior.values()) for t, p in prior.items()}
        mass = dict(prior)
        if prior_weight is not None:
            count = len(titles) - 1
            mass = {
                t: (prior_weight * prior[t] + count * policy[t].item()) / (prior_weight + count) for t in mass
            }
        q = {}
        for t in mass:
            upto = sum(m for s, m in mass.items() if reward[s] <= reward[t])
            below = sum(m for s, m in mass.items() if reward[s] < reward[t])
            q[t] = prior[t] * (upto**n - below**n) / (upto - below)
        losses.append(-sum(q[t] / sum(q.values()) * policy[t].log() for t in q))
    return sum(losses) / len(losses)


CASES = [
    (GRPO(kl_weight=0.3), lambda data: naive_grpo(data, 0.3)),
    (GRPO(kl_weight=0.0), lambda data: naive_grpo(data, 0.0)),
    (BestOfN(best_of=4, update="static"), lambda data: naive_best_of_n(data, 4, None)),
    (BestOfN(best_of=5, prior_weight=3.0), lambda data: naive_best_of_n(data, 5, 3.0)),
    (BestOfN(), lambda data: naive_best_of_n(data, 16, 16.0)),
]
each = pytest.mark.parametrize(("objective", "naive"), CASES, ids=lambda x: getattr(x, "name", ""))


@each
def test_matches_loops_and_autograd(objective: Objective, naive) -> None:
    data = windows(FOUND)
    output = objective(data.tokens())
    assert output.weight.item() == len(FOUND) == objective.weight_of(99, 50, len(FOUND))
    ours, theirs = output.total / at_least(output.weight), naive(data)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    (got,) = torch.autograd.grad(ours, data.logits)
    (wanted,) = torch.autograd.grad(theirs, data.logits)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


@each
def test_micro_batches_add_up_and_an_empty_one_is_nothing(objective: Objective, naive) -> None:
    data = windows(FOUND)
    whole = objective(data.tokens())
    nothing = windows([])
    parts = [objective(data.part([w]).tokens()) for w in range(len(FOUND))]
    parts.append(objective(nothing.tokens()))
    assert parts[-1].total.item() == 0 and parts[-1].weight.item() == 0
    (gradient,) = torch.autograd.grad(parts[-1].total, nothing.logits)
    assert gradient.shape == (0, EOS + 1)
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    assert sum(p.weight for p in parts) == whole.weight
    assert whole.metrics.keys() == parts[-1].metrics.keys()
    for name, (value, count) in whole.metrics.items():
        torch.testing.assert_close(sum(p.metrics[name][0] for p in parts), value)
        torch.testing.assert_close(sum(p.metrics[name][1] for p in parts), count)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_of_a_hundred_give_finite_gradients(objective: Objective, naive, dtype) -> None:
    data = windows(FOUND, scale=100.0)
    data.logits = data.logits.detach().to(dtype).requires_grad_()
    output = objective(data.tokens())
    (gradient,) = torch.autograd.grad(output.total, data.logits)
    assert output.total.dtype == dtype
    assert output.total.isfinite() and gradient.isfinite().all() and gradient.any()


def test_rewards_are_those_of_the_released_code() -> None:
    found = rank_rewards(Others.of(windows(FOUND).tokens().answers))
    d = [1, 1 / math.log2(3), 1 / 2, 1 / math.log2(5)]
    wanted = [
        [-d[0] / sum(d), -d[1] / sum(d), 1.0, -d[3] / sum(d)],
        [0.0, 0.0, 0.0, 0.0],
        [1.0, -d[1] / sum(d), -d[2] / sum(d), -d[3] / sum(d)],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_advantages_are_of_the_window_alone() -> None:
    rewards = torch.tensor([[1.0, -0.5, -0.2], [1.0, 0.0, 7.0], [0.3, 9.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    found = group_advantages(rewards, real)
    std = statistics.stdev([1.0, -0.5, -0.2])
    assert found[0].tolist() == pytest.approx([(r - 0.1) / (std + 1e-4) for r in (1.0, -0.5, -0.2)])
    assert found[1].tolist() == pytest.approx([0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4), 0.0])
    assert found[2].tolist() == [0.0, 0.0, 0.0]


def test_kl_is_never_negative_and_goes_on_straight() -> None:
    d = torch.linspace(-30, 300, 500, dtype=torch.float64, requires_grad=True)
    kl = kl_estimate(-d, torch.zeros_like(d))
    near = d.detach() < 10
    assert (kl >= 0).all()
    torch.testing.assert_close(kl[near], (d.exp() - d - 1)[near])
    (slope,) = torch.autograd.grad(kl.sum(), d)
    torch.testing.assert_close(slope, d.detach().clamp_max(10).exp() - 1)


def test_a_missed_target_leaves_only_the_reference() -> None:
    data = windows([[3, 5, 0]])
    (gradient,) = torch.autograd.grad(GRPO(kl_weight=0.0)(data.tokens()).total, data.logits)
    assert not gradient.any()
    tokens = data.tokens()
    tokens.extras["reference"] = data.logits.detach().log_softmax(1).gather(1, tokens.targets[:, None])[:, 0]
    output = GRPO(kl_weight=5.0)(tokens)
    (gradient,) = torch.autograd.grad(output.total, data.logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    assert float(output.metrics["kl"][0]) == pytest.approx(0, abs=1e-12)


@each
def test_the_targets_own_tokens_count_only_where_they_are_candidates(objective, naive) -> None:
    """Answer 0 is no rollout: GRPO leaves it alone; best-of-N has it among the candidates."""
    data = windows([[1, 2, 6]])
    (gradient,) = torch.autograd.grad(objective(data.tokens()).total, data.logits)
    (_, _, rows), *_ = data.rows()
    assert bool(gradient[rows].any()) == isinstance(objective, BestOfN)


def test_metrics_say_how_often_the_target_was_found() -> None:
    data = windows(FOUND)
    for objective in (GRPO(), BestOfN()):
        metrics = objective(data.tokens()).metrics
        assert [float(x) for x in metrics["rollout_hit"]] == [3, 5]
        assert float(metrics["rollout_ndcg"][0]) == pytest.approx(1 / math.log2(4) + 1 + 1)
        assert float(metrics["rollout_ndcg"][1]) == 5
    metrics = BestOfN(best_of=8)(data.tokens()).metrics
    assert metrics["target_mass"][0] > BestOfN(best_of=1)(data.tokens()).metrics["target_mass"][0]


def random_target(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, 3, size, generator=g, dtype=torch.float64)
    return draws[0].log_softmax(1), draws[1].log_softmax(1)


REWARDS = torch.tensor([[1.0, -0.5, -0.3, -0.2, -0.1, 0.5], [1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, -1]]).double()


def test_one_draw_gives_the_reference() -> None:
    prior, mass = random_target(0)
    torch.testing.assert_close(best_of_n_target(prior, mass, REWARDS, 1), prior)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_static_is_the_law_of_the_best_of_n_draws(n: int) -> None:
    prior, _ = random_target(1)
    q = best_of_n_target(prior, prior, REWARDS, n).exp()
    torch.testing.assert_close(q.sum(1), torch.ones(3, dtype=torch.float64))
    for row in range(3):
        p, r = prior[row].exp().tolist(), REWARDS[row].tolist()
        for y in range(len(p)):
            upto = sum(a for a, b in zip(p, r, strict=True) if b <= r[y])
            tied = sum(a for a, b in zip(p, r, strict=True) if b == r[y])
            assert float(q[row, y]) == pytest.approx((upto**n - (upto - tied) ** n) * p[y] / tied)


def test_static_agrees_with_drawing() -> None:
    prior, _ = random_target(2)
    g = torch.Generator().manual_seed(0)
    draws = torch.multinomial(prior[0].exp(), 3 * 200_000, replacement=True, generator=g).view(-1, 3)
    best = draws.gather(1, REWARDS[0][draws].argmax(1, keepdim=True))[:, 0]
    seen = torch.bincount(best, minlength=6) / len(best)
    q = best_of_n_target(prior, prior, REWARDS, 3).exp()[0]
    torch.testing.assert_close(seen.double(), q, rtol=0, atol=5e-3)


def test_titles_of_equal_reward_keep_the_references_proportions() -> None:
    prior, mass = random_target(3)
    q = best_of_n_target(prior, mass, REWARDS, 7)
    for row, tie in ((1, [1, 2, 3, 4, 5]), (2, [0, 1, 2]), (2, [3, 4])):
        difference = (q - prior)[row, tie]
        torch.testing.assert_close(difference, difference[:1].expand_as(difference))


def test_a_tie_is_counted_by_its_whole_mass_and_not_by_its_upper_end() -> None:
    """The numbers of the module's docstring."""
    prior = torch.tensor([[0.01, *[0.99 / 16] * 16]], dtype=torch.float64).log()
    rewards = torch.tensor([[1.0, *[0.0] * 16]])
    q = best_of_n_target(prior, prior, rewards, 16).exp()
    exact, upper_end = 1 - 0.99**16, 0.01 / (0.01 + 0.99 * 0.99**15)
    assert float(q[0, 0]) == pytest.approx(exact)
    assert (round(exact, 3), round(upper_end, 3)) == (0.149, 0.012)


def test_extreme_masses_stay_finite() -> None:
    for low in (-1e3, -1e30):
        prior = torch.tensor([[0.0, low, 2 * low, -torch.inf]]).log_softmax(1)
        for order in ([0.0, 0.5, 1.0, 2.0], [1.0, 0.5, 0.0, 2.0]):
            q = best_of_n_target(prior, prior, torch.tensor([order]), 16)
            assert q[0, :3].isfinite().all() and q[0, 3] == -torch.inf
            assert float(q.exp().sum()) == pytest.approx(1)


def test_much_prior_weight_makes_dynamic_static() -> None:
    static = BestOfN(update="static")(windows(FOUND).tokens()).total
    near = BestOfN(prior_weight=1e9)(windows(FOUND).tokens()).total
    far = BestOfN(prior_weight=1e-3)(windows(FOUND).tokens()).total
    torch.testing.assert_close(near, static, rtol=1e-6, atol=1e-6)
    assert (far - static).detach().abs() > 1e-2


def test_one_draw_holds_the_policy_to_the_reference() -> None:
    data = windows(FOUND)
    tokens = data.tokens()
    tokens.extras["reference"] = data.logits.detach().log_softmax(1).gather(1, tokens.targets[:, None])[:, 0]
    for update in ("static", "dynamic"):
        output = BestOfN(best_of=1, update=update)(tokens)
        (gradient,) = torch.autograd.grad(output.total, data.logits, retain_graph=True)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_dynamic_target_rises_with_the_policy_and_the_static_one_does_not() -> None:
    data = windows([[3, 5, 0, 2]])
    (_, _, rows), *_ = data.rows()
    mass: dict[str, list[float]] = {"static": [], "dynamic": []}
    for push in (0.0, 2.0, 4.0):
        logits = data.logits.detach().clone()
        for row, token in zip(rows, [*TITLES[3], EOS], strict=True):
            logits[row, token] += push
        moved = Windows(data.titles, logits, data.extras)
        for update, seen in mass.items():
            seen.append(float(BestOfN(best_of=8, update=update)(moved.tokens()).metrics["target_mass"][0]))
    assert mass["dynamic"] == sorted(mass["dynamic"]) and mass["dynamic"][2] > mass["dynamic"][0] + 0.05
    assert mass["static"] == pytest.approx([mass["static"][0]] * 3)


def test_settings_reach_the_objectives() -> None:
    config = ObjectiveConfig(
        name="grpo", rollouts=5, kl_weight=0.2, beam_width=4, best_of=7, best_of_update="static",
        prior_weight=2.5,
    )  # fmt: skip
    grpo, best = (
        make_objective(config),
        make_objective(ObjectiveConfig(**{**config.__dict__, "name": "best_of_n"})),
    )
    assert isinstance(grpo, GRPO) and isinstance(best, BestOfN)
    assert (grpo.kl_weight, grpo.beam_width) == (0.2, 4)
    assert (best.best_of, best.update, best.prior_weight, best.beam_width) == (7, "static", 2.5, 4)
    for objective in (grpo, best):
        assert (objective.negatives.kind, objective.negatives.count) == ("rollout", 5)
        assert objective.needs == {"reference", "negatives"}
    default = make_objective(ObjectiveConfig(name="grpo"))
    assert (default.negatives.count, default.kl_weight) == (16, 1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollouts", 0),
        ("kl_weight", -0.1),
        ("kl_weight", math.nan),
        ("best_of", 0),
        ("prior_weight", 0.0),
        ("prior_weight", math.inf),
    ],
)
def test_what_cannot_work_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"objective\.{field} is {value}"):
        ObjectiveConfig(**{field: value})
    with pytest.raises(ConfigError, match=field):
        (GRPO if field in ("rollouts", "kl_weight") else BestOfN)(**{field: value})


def test_an_unknown_update_is_named() -> None:
    with pytest.raises(ConfigError, match="update is 'sometimes'"):
        make_objective(ObjectiveConfig(name="best_of_n", best_of_update="sometimes"))
