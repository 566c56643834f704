"""D2LR-IPS and IGD, which are SFT with weights: against loops, and what they need."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import (
    D2LR,
    IGD,
    AnswerTokens,
    Objective,
    information_gain,
    make_objective,
    node_entropy,
)
from bearray.trie import TokenTrie

from . import reference

torch.set_num_threads(1)

TITLES = [[5, 1], [5, 1, 2], [5, 3], [7, 2, 2, 2], [9], [7, 4]]
COUNTS = [4, 1, 3, 2, 6, 0]
EOS = 11
ANSWERS = [[5, 1, 2], [7, 2, 2, 2], [9], [5, 1], [5, 3]]


def rows_of(answers: list[list[int]], logits: Tensor) -> AnswerTokens:
    trie = TokenTrie.from_sequences(TITLES)
    nodes = torch.tensor([n for path in trie.path_nodes(answers) for n in path])
    instance = torch.tensor([i for i, a in enumerate(answers) for _ in range(len(a) + 1)])
    popularity = torch.tensor([COUNTS[TITLES.index(a)] for a in answers])
    gain = information_gain(node_entropy(trie, torch.tensor(COUNTS)), nodes, instance)
    return AnswerTokens.build(
        logits,
        torch.tensor([t for a in answers for t in [*a, EOS]]),
        nodes,
        trie,
        EOS,
        instance,
        torch.tensor([k for a in answers for k in range(len(a) + 1)]),
        extras={"popularity": popularity[instance], "information_gain": gain},
    )


def some_logits() -> Tensor:
    rows = sum(len(a) + 1 for a in ANSWERS)
    g = torch.Generator().manual_seed(0)
    return (2 * torch.randn(rows, EOS + 1, generator=g, dtype=torch.float64)).requires_grad_()


def naive_entropy(prefix: list[int]) -> float:
    counts = [c for t, c in zip(TITLES, COUNTS, strict=True) if t[: len(prefix)] == prefix and c > 0]
    return -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts)


def naive(objective: Objective, logits: Tensor) -> tuple[float, Tensor]:
    """Loss and gradient in loops."""
    targets = [t for a in ANSWERS for t in [*a, EOS]]
    nll, gradients = reference.nll_rows(logits.tolist(), targets, [list(range(EOS + 1))] * len(targets))
    weights: list[float] = []
    for answer in ANSWERS:
        for k in range(len(answer) + 1):
            if isinstance(objective, D2LR):
                count = COUNTS[TITLES.index(answer)]
                weights.append((sum(COUNTS) / max(count, 1)) ** objective.power / (len(answer) + 1))
            elif isinstance(objective, IGD):
                after = naive_entropy(answer[: k + 1]) if k < len(answer) else 0.0
                informative = naive_entropy(answer[:k]) - after > 1e-9
                weights.append(1.0 if informative else objective.uninformative_weight)
    loss = sum(w * x for w, x in zip(weights, nll, strict=True)) / sum(weights)
    scaled = [[w * g / sum(weights) for g in row] for w, row in zip(weights, gradients, strict=True)]
    return loss, torch.tensor(scaled, dtype=torch.float64)


each = pytest.mark.parametrize(
    "objective",
    [D2LR(), D2LR(power=1.5), D2LR(power=0), IGD(), IGD(uninformative_weight=0), IGD(uninformative_weight=1)],
    ids=lambda o: f"{o.name}-{getattr(o, 'power', None)}-{getattr(o, 'uninformative_weight', None)}",
)


@each
def test_matches_loops(objective: Objective) -> None:
    logits = some_logits()
    output = objective(rows_of(ANSWERS, logits))
    loss = output.total / output.weight
    value, gradient = naive(objective, logits)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient)
    with pytest.raises(RuntimeError, match="is no count; it is from extras"):
        objective.weight_of(10, 4)
    tokens = rows_of(ANSWERS, logits)
    torch.testing.assert_close(
        objective.token_weights(tokens.extras, tokens.instance).sum().double(),
        output.weight,
        rtol=1e-6,
        atol=1e-6,
    )


@each
def test_micro_batches_of_answers_add_up(objective: Objective) -> None:
    logits = some_logits()
    whole = objective(rows_of(ANSWERS, logits))
    ends = [0]
    for answer in ANSWERS:
        ends.append(ends[-1] + len(answer) + 1)
    parts = [objective(rows_of(ANSWERS[a:b], logits[ends[a] : ends[b]])) for a, b in ((0, 1), (1, 4), (4, 5))]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.weight for p in parts), whole.weight)


@each
def test_no_rows(objective: Objective) -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    logits = torch.zeros(0, EOS + 1, requires_grad=True)
    trie = TokenTrie.from_sequences(TITLES)
    extras = {"popularity": torch.zeros(0), "information_gain": torch.zeros(0)}
    output = objective(
        AnswerTokens.build(logits, nothing, nothing, trie, EOS, nothing, nothing, extras=extras)
    )
    output.total.backward()
    assert output.total.item() == output.weight.item() == 0


def test_equal_weights_are_sft() -> None:
    logits = some_logits()
    tokens = rows_of(ANSWERS, logits)
    sft = make_objective(ObjectiveConfig(name="sft"))(tokens)
    igd = IGD(uninformative_weight=1)(tokens)
    torch.testing.assert_close(igd.total / igd.weight, sft.total / sft.weight)


def test_node_entropy() -> None:
    trie = TokenTrie.from_sequences(TITLES)
    entropy = node_entropy(trie, torch.tensor(COUNTS))
    prefixes = {tuple(t[:k]) for t in TITLES for k in range(len(t) + 1)}
    assert len(prefixes) == len(trie)
    for prefix in prefixes:
        assert entropy[trie.find(prefix)].item() == pytest.approx(naive_entropy([*prefix]), abs=1e-12)
    for counts in (COUNTS[:-1], [*COUNTS[:-1], -1]):
        with pytest.raises(ValueError, match="one for each title"):
            node_entropy(trie, torch.tensor(counts))


def test_forced_tokens_tell_nothing() -> None:
    """A token without a choice has IG exactly 0, rounding or not."""
    titles = [[1, 2, 3, 4 + i] for i in range(7)] + [[9, 9, 9]]
    trie = TokenTrie.from_sequences(titles)
    entropy = node_entropy(trie, torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]))
    path = torch.tensor(trie.path_nodes(titles[:1])[0])
    gain = information_gain(entropy, path, torch.zeros(5, dtype=torch.long))
    assert (gain[[1, 2, 4]] == 0).all() and (gain[3] > 0)
    assert gain.sum().item() == pytest.approx(entropy[0].item())  # what is learnt on the way is all there is


def test_what_is_missing_is_named() -> None:
    tokens = rows_of(ANSWERS, some_logits())
    for objective in (D2LR(), IGD()):
        (need,) = objective.needs
        full = tokens.extras
        tokens.extras = {k: v for k, v in full.items() if k != need}
        with pytest.raises(ConfigError, match=f"{objective.name}.*{need}"):
            objective(tokens)
        tokens.extras = {**full, need: full[need][1:]}
        with pytest.raises(ValueError, match=need):
            objective(tokens)
        tokens.extras = full
    with pytest.raises(ConfigError, match="power"):
        D2LR(power=-1)
    with pytest.raises(ConfigError, match="uninformative_weight"):
        IGD(uninformative_weight=math.nan)
