"""Flower: training counts on the trie, and the loss against double loops of single numbers with autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import Flow, Flower, at_least, make_objective
from bearray.objectives.flow import FLOOR
from bearray.objectives.flower import preference_scale, sub_trajectory_balance
from bearray.trie import TokenTrie

from .windows import EOS, TITLES, TRIE, Windows, log_prob, windows

torch.set_num_threads(1)

COUNTS = [4, 1, 3, 2, 0, 0, 5]
"""[9] and [7, 4] were never chosen; the first alone in its branch, the second beside one that was."""
SAMPLED = [[1, 2], [3, 6], [0, 0], [4, 5]]
"""Targets and trajectories: other titles, and once the target itself."""


def ended(prefix: list[int]) -> int:
    return sum(c for t, c in zip(TITLES, COUNTS, strict=True) if t == prefix)


def mass(prefix: list[int]) -> int:
    return sum(c for t, c in zip(TITLES, COUNTS, strict=True) if t[: len(prefix)] == prefix)


def titles_below(prefix: list[int]) -> int:
    return sum(t[: len(prefix)] == prefix for t in TITLES)


def log_share(part: float, whole: float) -> float:
    return max(FLOOR, math.log(part / whole)) if part else FLOOR


def naive_flow(prefix: list[int], token: int) -> float:
    longer = [*prefix, token]
    if mass(prefix):
        return log_share(mass(longer), mass(prefix))
    return log_share(titles_below(longer), titles_below(prefix))


def naive_stop(prefix: list[int]) -> float:
    if mass(prefix):
        return log_share(ended(prefix), mass(prefix))
    return log_share(TITLES.count(prefix), titles_below(prefix))


def naive(data: Windows, theta: float, personalised: bool) -> Tensor:
    losses = []
    answers = list(data.rows())
    for w in range(len(data.titles)):
        (_, target, rows), (_, title, sampled) = (a for a in answers if a[0] == w)
        sft = -sum(
            log_prob(data.logits[r], t) for r, t in zip(rows, [*TITLES[target], EOS], strict=True)
        ) / len(rows)
        u = 1.0
        if personalised:
            scores = data.window_extras["user_scores"][w].tolist()
            f = [math.exp(s) / sum(math.exp(x) for x in scores) for s in scores]
            u += (f[title] - sum(f) / len(f)) / (max(f) - min(f))
        own = TITLES[title]
        log_reward = [
            (sum(naive_flow(own[:k], own[k]) for k in range(i)) + naive_stop(own[:i])) / u
            for i in range(len(own) + 1)
        ]
        stop = [log_prob(data.logits[r], EOS) for r in sampled]
        delta = [
            log_reward[i]
            + log_prob(data.logits[sampled[i]], own[i])
            + stop[i + 1]
            - log_reward[i + 1]
            - stop[i]
            for i in range(len(own))
        ]
        squares = [sum(delta[i:j]) ** 2 for i in range(len(own) + 1) for j in range(i + 1, len(own) + 1)]
        losses.append(theta * sft + (1 - theta) * sum(squares) / len(squares))
    return sum(losses) / len(losses)


def case(titles: list[list[int]], seed: int = 0, scale: float = 2.0) -> Windows:
    data = windows(titles, seed, scale)
    flow, stop = Flow.of(TRIE, torch.tensor(COUNTS)).of_tokens(data.nodes, data.instance)
    data.extras = {"flow": flow, "stop_flow": stop}
    return data


each = pytest.mark.parametrize(
    "objective",
    [
        Flower(),
        Flower(theta=0.6),
        Flower(theta=0.0),
        Flower(theta=1.0),
        Flower(theta=0.3, personalised=False),
    ],
    ids=lambda o: f"{o.theta}-{o.personalised}",
)


@each
def test_matches_the_double_loop_and_autograd(objective: Flower) -> None:
    data = case(SAMPLED)
    output = objective(data.tokens())
    assert output.weight.item() == len(SAMPLED) == objective.weight_of(99, 50, len(SAMPLED))
    ours = output.total / at_least(output.weight)
    theirs = naive(data, objective.theta, objective.personalised)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    (got,) = torch.autograd.grad(ours, data.logits)
    (wanted,) = torch.autograd.grad(theirs, data.logits)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


@each
def test_micro_batches_add_up_and_an_empty_one_is_nothing(objective: Flower) -> None:
    data, nothing = case(SAMPLED), case([])
    whole = objective(data.tokens())
    parts = [objective(data.part([w]).tokens()) for w in range(len(SAMPLED))]
    parts.append(objective(nothing.tokens()))
    assert parts[-1].total.item() == 0 and parts[-1].weight.item() == 0
    (gradient,) = torch.autograd.grad(parts[-1].total, nothing.logits)
    assert gradient.shape == (0, EOS + 1)
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    for name, (value, count) in whole.metrics.items():
        torch.testing.assert_close(sum(p.metrics[name][0] for p in parts), value)
        torch.testing.assert_close(sum(p.metrics[name][1] for p in parts), count)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_of_a_hundred_give_finite_gradients(objective: Flower, dtype) -> None:
    data = case(SAMPLED, scale=100.0)
    data.logits = data.logits.detach().to(dtype).requires_grad_()
    output = objective(data.tokens())
    (gradient,) = torch.autograd.grad(output.total, data.logits)
    assert output.total.dtype == dtype
    assert output.total.isfinite() and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("states", [2, 3, 9])
def test_the_closed_form_is_the_mean_over_pairs(states: int) -> None:
    g = torch.Generator().manual_seed(states)
    energy = 1e4 + torch.randn(4, 9, generator=g, dtype=torch.float64)  # a constant leaves it as it is
    real = torch.arange(9) < states
    energy[:, states:] = torch.nan
    found = sub_trajectory_balance(energy, real.expand(4, -1))
    for row, e in enumerate(energy[:, :states].tolist()):
        pairs = [(e[j] - e[i]) ** 2 for i in range(states) for j in range(i + 1, states)]
        assert float(found[row]) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)
        total = [x - e[0] for x in e]  # the sums of delta
        closed = (states * sum(c * c for c in total) - sum(total) ** 2) / len(pairs)
        assert float(found[row]) == pytest.approx(closed, rel=1e-9)


def test_a_policy_that_follows_the_flow_is_balanced() -> None:
    """PF = the shares of training choices: every prefix is left and ended as often as in training."""
    chosen = Windows([[1, 3], [2, 6], [3, 0]], torch.zeros(0), {}, {})
    logits = torch.full((sum(map(len, chosen.answers)), EOS + 1), -60.0, dtype=torch.float64)
    row = 0
    for answer in chosen.answers:
        for k in range(len(answer)):
            prefix = answer[:k]
            for token in {t[k] for t in TITLES if t[:k] == prefix and len(t) > k}:
                logits[row, token] = naive_flow(prefix, token)
            logits[row, EOS] = naive_stop(prefix)
            row += 1
    chosen.logits = logits
    flow, stop = Flow.of(TRIE, torch.tensor(COUNTS)).of_tokens(chosen.nodes, chosen.instance)
    chosen.extras = {"flow": flow, "stop_flow": stop}
    output = Flower(theta=0.0, personalised=False)(chosen.tokens())
    assert float(output.total) == pytest.approx(0, abs=1e-9)
    assert float(output.metrics["subtb"][0]) == pytest.approx(0, abs=1e-9)


def test_flow_by_hand() -> None:
    flow = Flow.of(TRIE, torch.tensor(COUNTS))
    for title in TITLES:
        for k in range(len(title) + 1):
            node = TRIE.find(title[:k])
            assert float(flow.stop[node]) == pytest.approx(naive_stop(title[:k]))
            if k:
                assert float(flow.enter[node]) == pytest.approx(naive_flow(title[: k - 1], title[k - 1]))
    assert float(flow.enter[TRIE.find([9])]) == FLOOR  # nobody chose it
    assert float(flow.stop[TRIE.find([9])]) == 0  # there it can only end
    assert float(flow.enter[TRIE.find([7, 4])]) == FLOOR
    assert float(flow.stop[TRIE.find([5])]) == FLOOR  # no title
    assert float(flow.stop[TRIE.find([5, 1])]) == pytest.approx(math.log(4 / 10))


def test_shares_of_a_node_are_a_distribution() -> None:
    g = torch.Generator().manual_seed(1)
    titles = [
        list(t) for t in {tuple(torch.randint(4, (n,), generator=g).tolist()) for n in [1, 2, 3, 4] * 30}
    ]
    trie = TokenTrie.from_sequences(titles)
    flow = Flow.of(trie, torch.randint(1, 9, (len(titles),), generator=g))
    total = torch.where(trie.terminal >= 0, flow.stop.exp(), 0.0)
    total.index_add_(0, trie.parent[1:].long(), flow.enter[1:].exp())
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_trie_that_nobody_chose_from_counts_titles() -> None:
    flow = Flow.of(TRIE, torch.zeros(7, dtype=torch.long))
    assert float(flow.enter[TRIE.find([5])]) == pytest.approx(math.log(4 / 7))
    with pytest.raises(ValueError, match="title_counts must be 7 counts"):
        Flow.of(TRIE, torch.zeros(6))
    with pytest.raises(ValueError, match="title_counts"):
        Flow.of(TRIE, torch.tensor([-1, 0, 0, 0, 0, 0, 0]))


def test_the_scale_of_preferences() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [50.0, 0.0, 0.0]], dtype=torch.float64)
    title = torch.tensor([1, 2, 0])
    f = scores[1].softmax(0)
    wanted = [1.0, 1 + float((f[2] - f.mean()) / (f.max() - f.min())), 1 + 2 / 3]
    assert preference_scale(scores, title).tolist() == pytest.approx(wanted)
    g = torch.Generator().manual_seed(0)
    many = 30 * torch.randn(200, 9, generator=g)
    scale = preference_scale(many, torch.randint(9, (200,), generator=g))
    assert (scale > 0).all() and (scale < 2).all()


def test_scores_go_where_the_logits_are() -> None:
    tokens = case(SAMPLED).tokens()
    tokens.logits = tokens.logits.to("meta")
    assert Flower().window_extra(tokens, "user_scores").device.type == "meta"


def test_metrics_show_both_parts() -> None:
    data = case(SAMPLED)
    metrics = Flower(theta=0.5)(data.tokens()).metrics
    only = Flower(theta=0.0)(data.tokens()).total
    torch.testing.assert_close(metrics["subtb"][0], only.detach())
    assert [int(metrics[n][1]) for n in ("subtb", "log_reward")] == [4, 4]
    rewards = [
        sum(naive_flow(t[:k], t[k]) for k in range(len(t))) + naive_stop(t)
        for t in (TITLES[own[1]] for own in SAMPLED)
    ]
    plain = Flower(personalised=False)(data.tokens()).metrics["log_reward"]
    assert float(plain[0]) == pytest.approx(sum(rewards))


def test_settings_and_needs() -> None:
    flower = make_objective(ObjectiveConfig(name="flower", theta=0.9, beam_width=4))
    assert isinstance(flower, Flower)
    assert (flower.theta, flower.personalised, flower.beam_width) == (0.9, True, 4)
    assert (flower.negatives.kind, flower.negatives.count) == ("sample", 1)
    provided = {"negatives", "flow", "stop_flow"}
    with pytest.raises(ConfigError, match="'flower' needs user_scores"):
        flower.check_needs(provided)
    make_objective(ObjectiveConfig(name="flower", personalised=False)).check_needs(provided)
    data = case(SAMPLED).tokens()
    data.window_extras = {}
    with pytest.raises(ConfigError, match="'flower' needs 'user_scores'"):
        flower(data)
    for theta in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=r"objective\.theta is"):
            ObjectiveConfig(theta=theta)
        with pytest.raises(ConfigError, match="theta is"):
            Flower(theta=theta)
