"""MSL's adaptive temperature against the published formula in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import MSL, AnswerTokens, make_objective
from bearray.trie import TokenTrie

from . import reference

torch.set_num_threads(1)

FIRST_TOKENS = 12
EOS = 40
TITLES = [[token, 20 + token % 3, 30] for token in range(FIRST_TOKENS)] + [[0, 25, 31]]


def step_of_answers(
    seed: int, *, offset: float = 0.0, gap: float = 0.0, answers: int = 7
) -> list[AnswerTokens]:
    """An optimiser step in two micro-batches; the offset is on all logits, the gap on the targets'."""
    g = torch.Generator().manual_seed(seed)
    trie = TokenTrie.from_sequences(TITLES)
    parts = []
    for rows in (answers // 3, answers - answers // 3):
        chosen = torch.randint(len(TITLES), (rows,), generator=g).tolist()
        titles = [TITLES[i] for i in chosen]
        paths = trie.path_nodes(titles)
        targets = torch.tensor([t for title in titles for t in [*title, EOS]])
        logits = torch.randn(len(targets), EOS + 1, generator=g, dtype=torch.float64) + offset
        logits[torch.arange(len(targets)), targets] += gap
        nodes = torch.tensor([n for p in paths for n in p])
        keep = trie.child_count(nodes) > 1
        instance = torch.tensor([i for i, p in enumerate(paths) for _ in p])
        steps = torch.tensor([k for p in paths for k in range(len(p))])
        parts.append(
            AnswerTokens.build(
                logits[keep],
                targets[keep],
                nodes[keep],
                trie,
                EOS,
                instance[keep],
                steps[keep],
                num_answer_tokens=len(targets),
            )
        )
    return parts


def naive(tau: float, parts: list[AnswerTokens]) -> float:
    rows, targets = [], []
    for tokens in parts:
        for n in range(len(tokens.targets)):
            if tokens.step[n] == 0:
                rows.append(tokens.logits[n, :FIRST_TOKENS].tolist())
                targets.append(int(tokens.targets[n]))
    return reference.adapt_temperature(tau, rows, targets)


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e4])
@pytest.mark.parametrize("gap", [0.0, 3.0, 5.0, 30.0])
def test_follows_the_reference(offset: float, gap: float) -> None:
    """Also where all logits are large, so that a sum of squares would drown the variance."""
    objective = MSL(adaptive=True)
    tau, estimates = 1.5, set()
    for step in range(6):
        parts = step_of_answers(step, offset=offset, gap=gap)
        stats = [objective(p).stats for p in parts]
        expected = naive(tau, parts)
        objective.end_step(torch.stack([s for s in stats if s is not None]).sum(0))
        assert objective.tau == pytest.approx(expected, rel=1e-9 if abs(offset) < 1e3 else 1e-6)
        estimates.add(round((expected - 0.95 * tau) / 0.05, 4))
        tau = objective.tau
    if gap == 0:
        assert estimates == {1.5}  # the lower clamp
    elif gap == 30:
        assert estimates == {5.0}  # the upper clamp
    elif gap == 5:
        assert all(1.5 < e < 5.0 for e in estimates)


def test_single_precision_logits_are_summed_safely() -> None:
    objective = MSL(adaptive=True)
    tau = 1.5
    for step in range(3):
        parts = step_of_answers(step, offset=3e3, gap=5.0)
        for p in parts:
            p.logits = p.logits.float()
        expected = naive(tau, parts)
        objective.end_step(sum(objective(p).stats for p in parts))  # type: ignore[arg-type]
        assert objective.tau == pytest.approx(expected, rel=1e-6)
        tau = objective.tau


def test_takes_effect_at_the_next_step() -> None:
    objective = MSL(adaptive=True)
    parts = step_of_answers(0, gap=5.0)
    before = objective(parts[1])
    total, count = before.metrics["tau"]
    assert (total / count).item() == 1.5
    objective.end_step(sum(objective(p).stats for p in parts))  # type: ignore[arg-type]
    after = objective(parts[1])
    assert objective.tau > 1.5 and after.total.item() != before.total.item()
    log_probs = (parts[1].candidate_logits / objective.tau).log_softmax(-1)
    nll = -log_probs.gather(1, parts[1].target_column[:, None]).sum()
    assert after.total.item() == pytest.approx(objective.tau * nll.item())
    assert after.weight.item() == int(parts[1].is_branching.sum())


def test_a_step_without_first_tokens_changes_nothing() -> None:
    objective = MSL(adaptive=True)
    nothing = torch.zeros(0, dtype=torch.long)
    trie = TokenTrie.from_sequences(TITLES)
    tokens = AnswerTokens.build(torch.zeros(0, EOS + 1), nothing, nothing, trie, EOS, nothing, nothing)
    stats = objective(tokens).stats
    assert stats is not None and stats.tolist() == [0] * 5
    objective.end_step(stats)
    assert objective.state_dict() == {"tau": 1.5}


def test_state_survives_a_checkpoint() -> None:
    one, other = MSL(adaptive=True), MSL(adaptive=True)
    one.end_step(sum(one(p).stats for p in step_of_answers(0, gap=5.0)))  # type: ignore[arg-type]
    other.load_state_dict(one.state_dict())
    for objective in (one, other):
        objective.end_step(sum(objective(p).stats for p in step_of_answers(1, gap=5.0)))  # type: ignore[arg-type]
    assert one.tau == other.tau and one.state_dict() == other.state_dict()
    assert MSL().state_dict() == {}


@pytest.mark.parametrize(("first_tokens", "fits"), [(1, False), (4, False), (5, True)])
def test_a_small_catalogue_is_refused(first_tokens: int, fits: bool) -> None:
    trie = TokenTrie.from_sequences([[t, 9] for t in range(first_tokens)])
    objective = make_objective(ObjectiveConfig(name="msl", adaptive=True))
    make_objective(ObjectiveConfig(name="msl")).bind(trie)  # a fixed temperature works on any
    if fits:
        objective.bind(trie)
        return
    with pytest.raises(ConfigError, match=f"start with {first_tokens} different"):
        objective.bind(trie)
    stats = torch.tensor([2.0, 1.0, 2.0 * first_tokens, 1.0, 5.0])
    with pytest.raises(ConfigError, match="too small"):
        objective.end_step(stats)


def test_adaptive_needs_the_trie() -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        make_objective(ObjectiveConfig(name="msl", adaptive=True, vocabulary="full"))
    with pytest.raises(ConfigError, match="rate"):
        MSL(adaptive=True, rate=0)
    assert math.isclose(MSL(tau=4.5).tau, 4.5)
