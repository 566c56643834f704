"""S-DPO and its family: against loops over single numbers with autograd, and in the corners."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import (
    DMPO,
    DPO,
    SDPO,
    AnswerTokens,
    Objective,
    RosePO,
    SDPOBear,
    at_least,
    make_objective,
)
from bearray.objectives.tokens import Answers
from bearray.trie import TokenTrie

torch.set_num_threads(1)

TITLES = [[5, 1], [5, 1, 2], [5, 3], [7, 2, 2, 2], [9], [7, 4], [5, 1, 6, 8]]
EOS = 11
TRIE = TokenTrie.from_sequences(TITLES)
ONE = [[1, 2], [3, 5], [0, 4]]
SEVERAL = [[1, 2, 6, 3], [3, 5], [6, 1, 0]]
"""Titles of each window, the target first."""


@dataclass
class Case:
    """Windows, and the logits and reference log-probabilities of their answers' tokens."""

    windows: list[list[int]]
    logits: Tensor
    reference: Tensor
    scores: Tensor

    @property
    def answers(self) -> list[tuple[int, int]]:
        """(window, title) of each answer."""
        return [(w, t) for w, titles in enumerate(self.windows) for t in titles]

    def tokens(self) -> AnswerTokens:
        titles = [TITLES[t] for _, t in self.answers]
        lengths = torch.tensor([len(t) + 1 for t in titles], dtype=torch.long)
        return AnswerTokens.build(
            self.logits,
            torch.tensor([x for t in titles for x in [*t, EOS]], dtype=torch.long),
            torch.tensor([n for path in TRIE.path_nodes(titles) for n in path] if titles else [], dtype=int),
            TRIE,
            EOS,
            torch.arange(len(titles)).repeat_interleave(lengths),
            torch.tensor([k for t in titles for k in range(len(t) + 1)], dtype=torch.long),
            extras={"reference": self.reference},
            answers=Answers(
                title=torch.tensor([t for _, t in self.answers], dtype=torch.long),
                window=torch.tensor([w for w, _ in self.answers], dtype=torch.long),
                is_target=torch.tensor([k == 0 for titles in self.windows for k in range(len(titles))]) > 0,
                length=lengths,
                score=torch.zeros(len(titles)),
                num_windows=len(self.windows),
            ),
            window_extras={"user_scores": self.scores},
        )


def case(windows: list[list[int]], seed: int = 0, scale: float = 2.0) -> Case:
    g = torch.Generator().manual_seed(seed)
    rows = sum(len(TITLES[t]) + 1 for titles in windows for t in titles)
    logits = (scale * torch.randn(rows, EOS + 1, generator=g, dtype=torch.float64)).requires_grad_()
    reference = -3 * torch.rand(rows, generator=g, dtype=torch.float64)
    return Case(windows, logits, reference, torch.randn(len(windows), len(TITLES), generator=g).double())


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def valid_next(prefix: list[int]) -> list[int]:
    after = {t[len(prefix)] if len(t) > len(prefix) else EOS for t in TITLES if t[: len(prefix)] == prefix}
    return sorted(after)


def naive(objective: Objective, data: Case) -> Tensor:
    """The mean over windows of the formula as its file's docstring has it."""
    losses: list[Tensor] = []
    row = 0
    for window, titles in enumerate(data.windows):
        rewards: list[Tensor] = []
        penalties: list[Tensor] = []
        for title in titles:
            reward = torch.zeros((), dtype=torch.float64)
            penalty = torch.zeros((), dtype=torch.float64)
            own = [*TITLES[title], EOS]
            best = [*TITLES[titles[0]], EOS]
            for k, token in enumerate(own):
                z = data.logits[row]
                p = z.exp() / z.exp().sum()
                reward = reward + p[token].log() - data.reference[row]
                if isinstance(objective, SDPOBear):
                    among = list(range(EOS + 1))
                    if objective.regularizer_vocabulary == "trie":
                        among = valid_next(own[:k])
                    q = {v: z[v].exp() / sum(z[u].exp() for u in among) for v in among}
                    ranked = sorted((float(x.detach()) for x in q.values()), reverse=True)
                    beta = ranked[min(objective.beam_width, len(ranked)) - 1]
                    margin = math.log(beta) - q[token].log()
                    if not (
                        objective.mask_common_prefix and title != titles[0] and own[: k + 1] == best[: k + 1]
                    ):
                        if objective.form == "hinge" and title == titles[0]:
                            penalty = penalty - sigmoid(-margin / objective.xi).log()
                        else:
                            penalty = penalty + sigmoid(margin / objective.xi).log()
                row += 1
            rewards.append(objective.beta * reward)
            penalties.append(penalty)
        chosen, rejected = rewards[0], rewards[1:]
        if isinstance(objective, DPO):
            loss = -sigmoid(chosen - rejected[0]).log()
        elif isinstance(objective, DMPO):
            loss = -sigmoid(-sum(r - chosen for r in rejected)).log()
        elif isinstance(objective, RosePO):
            eps = objective.smoothing
            if eps is None:
                s = data.scores[window].double()
                eps = float(sigmoid(s[titles[1]] - s[titles[0]]))
            gap = chosen - rejected[0]
            loss = -(1 - eps) * sigmoid(gap).log() - eps * sigmoid(-gap).log()
        else:
            loss = -sigmoid(-torch.log(sum(torch.exp(r - chosen) for r in rejected))).log()
            if isinstance(objective, SDPOBear):
                loss = loss + objective.lam * (penalties[0] - sum(penalties[1:]) / len(rejected))
        losses.append(loss)
    return sum(losses) / len(losses)


BEAR = {"lam": 0.7, "xi": 0.6, "beam_width": 2}
CASES: list[tuple[Objective, list[list[int]]]] = [
    (SDPO(), SEVERAL),
    (SDPO(beta=0.3), SEVERAL),
    (SDPO(beta=0.4), ONE),
    (DPO(), ONE),
    (DPO(beta=1.7), ONE),
    (DMPO(), SEVERAL),
    (RosePO(), ONE),
    (RosePO(smoothing=0.0), ONE),
    (RosePO(smoothing=None, beta=0.8), ONE),
    *[
        (SDPOBear(**BEAR, vocabulary=v, form=f, mask_common_prefix=m), SEVERAL)
        for v in ("trie", "full")
        for f in ("equation", "hinge")
        for m in (False, True)
    ],
]
each = pytest.mark.parametrize(("objective", "windows"), CASES, ids=lambda x: getattr(x, "name", ""))


@each
def test_matches_loops_and_autograd(objective: Objective, windows: list[list[int]]) -> None:
    data = case(windows)
    output = objective(data.tokens())
    assert output.weight.item() == len(windows) == objective.weight_of(99, 50, len(windows))
    ours, theirs = output.total / at_least(output.weight), naive(objective, data)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    (got,) = torch.autograd.grad(ours, data.logits)
    (wanted,) = torch.autograd.grad(theirs, data.logits)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


@each
def test_micro_batches_add_up_and_an_empty_one_is_nothing(objective, windows) -> None:
    whole = objective(case(windows).tokens())
    data = case(windows)
    parts, first = [], 0
    for w, titles in enumerate(windows):
        rows = slice(first, first + sum(len(TITLES[t]) + 1 for t in titles))
        first = rows.stop
        one = Case([titles], data.logits[rows], data.reference[rows], data.scores[w : w + 1])
        parts.append(objective(one.tokens()))
    nothing = case([])
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
def test_logits_of_a_hundred_give_finite_gradients(objective, windows) -> None:
    data = case(windows, scale=100.0)
    output = objective(data.tokens())
    (gradient,) = torch.autograd.grad(output.total, data.logits)
    assert output.total.isfinite() and gradient.isfinite().all() and gradient.any()


def test_metrics_are_those_of_the_targets_and_of_the_pairs() -> None:
    data = case(SEVERAL, seed=2)
    metrics = SDPO(beta=0.5, beam_width=2)(data.tokens()).metrics
    nll, rewards, row = 0.0, [], 0
    tokens = violated = branching = 0
    for titles in SEVERAL:
        rewards.append([])
        for k, title in enumerate(titles):
            own, reward = [*TITLES[title], EOS], 0.0
            for step, token in enumerate(own):
                z = data.logits[row].detach()
                log_p = float(z.log_softmax(0)[token])
                reward += 0.5 * (log_p - float(data.reference[row]))
                among = valid_next(own[:step])
                if k == 0:
                    nll, tokens = nll - log_p, tokens + 1
                    branching += len(among) > 1
                    violated += len(among) > 1 and sum(float(z[v]) > float(z[token]) for v in among) >= 2
                row += 1
            rewards[-1].append(reward)
    assert float(metrics["nll"][0]) == pytest.approx(nll) and int(metrics["nll"][1]) == tokens
    assert [int(x) for x in metrics["violation"]] == [violated, branching]
    won = [r[0] > max(r[1:]) for r in rewards]
    assert 0 < sum(won) < len(won)
    assert [int(x) for x in metrics["preference_accuracy"]] == [sum(won), len(won)]
    margin = sum(r[0] - sum(r[1:]) / len(r[1:]) for r in rewards)
    assert float(metrics["reward_margin"][0]) == pytest.approx(margin)
    assert int(metrics["reward_margin"][1]) == len(rewards)


def test_a_policy_equal_to_its_reference_prefers_nothing() -> None:
    data = case(SEVERAL)
    targets = data.tokens().targets
    data.reference = data.logits.detach().log_softmax(1).gather(1, targets[:, None])[:, 0]
    per_window = [math.log(1 + len(titles) - 1) for titles in SEVERAL]
    assert SDPO()(data.tokens()).total.item() == pytest.approx(sum(per_window))


def test_one_negative_makes_sdpo_and_dmpo_dpo_and_smoothing_zero_rosepo() -> None:
    losses = [o(case(ONE).tokens()).total for o in (SDPO(beta=0.2), DMPO(beta=0.2), DPO(beta=0.2))]
    losses.append(RosePO(beta=0.2, smoothing=0.0)(case(ONE).tokens()).total)
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])


def test_a_window_without_others_counts_and_pulls_on_nothing() -> None:
    alone, both = case([[1, 2], [3]]), case([[1, 2], [3]])
    output = SDPO()(both.tokens())
    assert output.weight.item() == 2
    (gradient,) = torch.autograd.grad(output.total, both.logits)
    first = sum(len(TITLES[t]) + 1 for t in (1, 2))
    assert gradient[:first].any() and not gradient[first:].any()
    assert int(output.metrics["preference_accuracy"][1]) == 1
    part = Case([[1, 2]], alone.logits[:first], alone.reference[:first], alone.scores[:1])
    torch.testing.assert_close(SDPO()(part.tokens()).total, output.total)


def test_settings_reach_the_objectives() -> None:
    config = ObjectiveConfig(
        name="sdpo_bear", beta=0.4, negatives=5, negative_kind="near", lam=0.9, xi=2.0, beam_width=4,
        vocabulary="full", form="hinge", mask_common_prefix=True,
    )  # fmt: skip
    bear = make_objective(config)
    assert isinstance(bear, SDPOBear)
    assert (bear.beta, bear.lam, bear.xi, bear.beam_width, bear.form) == (0.4, 0.9, 2.0, 4, "hinge")
    assert bear.mask_common_prefix and bear.regularizer_vocabulary == "full" and bear.vocabulary == "full"
    for name, kind, count in (
        ("sdpo", "near", 5), ("dmpo", "near", 5), ("dpo", "near", 1), ("rosepo", "near", 1),
    ):  # fmt: skip
        made = make_objective(replace(config, name=name))
        assert (made.beta, made.negatives.kind, made.negatives.count) == (0.4, kind, count)
        assert {"reference", "negatives"} <= made.needs
    default = {n: make_objective(ObjectiveConfig(name=n)) for n in ("sdpo", "dmpo", "dpo", "rosepo")}
    assert {n: (o.beta, o.negatives.kind, o.negatives.count) for n, o in default.items()} == {
        "sdpo": (1.0, "uniform", 3), "dmpo": (0.3, "uniform", 3), "dpo": (0.1, "uniform", 1),
        "rosepo": (0.3, "popularity", 1),
    }  # fmt: skip


def test_what_cannot_work_is_named() -> None:
    for wrong, message in (
        ({"beta": 0.0}, r"objective\.beta is 0\.0"),
        ({"negatives": 0}, r"objective\.negatives is 0"),
        ({"smoothing": 0.5}, r"objective\.smoothing is 0\.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            ObjectiveConfig(**wrong)
    with pytest.raises(ConfigError, match="form is 'released'"):
        make_objective(ObjectiveConfig(name="sdpo_bear", form="released"))
    with pytest.raises(ConfigError, match=r"smoothing is 0\.7"):
        RosePO(smoothing=0.7)
    with pytest.raises(ConfigError, match="beta"):
        DPO(beta=-1.0)


def test_an_oracle_without_scores_fails_before_training_by_name() -> None:
    oracle = make_objective(ObjectiveConfig(name="rosepo", smoothing=None))
    with pytest.raises(ConfigError, match="'rosepo' needs user_scores"):
        oracle.check_needs({"reference", "negatives", "trie"})
    data = case(ONE).tokens()
    data.window_extras = {}
    with pytest.raises(ConfigError, match="user_scores"):
        oracle(data)
    make_objective(ObjectiveConfig(name="rosepo")).check_needs({"reference", "negatives"})


def test_tokens_without_reference_or_answers_are_refused() -> None:
    data = case(ONE).tokens()
    data.extras = {}
    with pytest.raises(ConfigError, match="'sdpo' needs 'reference'"):
        SDPO()(data)
    data = case(ONE).tokens()
    data.answers = None
    with pytest.raises(ValueError, match=r"AnswerTokens\.answers"):
        SDPO()(data)
