"""CFT: against loops over plain Python numbers, and against numerical gradients in both kinds of logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import AnswerTokens, make_objective
from bearray.objectives.cft import CFT, position_weights
from bearray.trie import TokenTrie

torch.set_num_threads(1)

TITLES = [[5, 1], [5, 1, 2], [5, 3], [7, 2, 2, 2], [9], [7, 4]]
EOS = 11
ANSWERS = [[5, 1, 2], [7, 2, 2, 2], [9], [5, 1], [5, 3]]


def tokens_of(answers: list[list[int]], logits: Tensor, other: Tensor | None) -> AnswerTokens:
    trie = TokenTrie.from_sequences(TITLES)
    ints = {"dtype": torch.long}
    built = AnswerTokens.build(
        logits,
        torch.tensor([t for a in answers for t in [*a, EOS]], **ints),
        torch.tensor([n for path in trie.path_nodes(answers) for n in path] if answers else [], **ints),
        trie,
        EOS,
        torch.tensor([i for i, a in enumerate(answers) for _ in range(len(a) + 1)], **ints),
        torch.tensor([k for a in answers for k in range(len(a) + 1)], **ints),
    )
    return replace(built, logits_without_history=other)


def both_logits(scale: float = 2.0, answers: list[list[int]] = ANSWERS) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    rows = sum(len(a) + 1 for a in answers)
    return tuple(
        (scale * torch.randn(rows, EOS + 1, generator=g, dtype=torch.float64)).requires_grad_()
        for _ in range(2)
    )


def cross_entropy(row: list[float], target: int) -> float:
    top = max(row)
    return top + math.log(sum(math.exp(x - top) for x in row)) - row[target]


def naive(logits: list[list[float]], other: list[list[float]], contrast: float, last: float) -> float:
    normal = causal = divisor = 0.0
    n = 0
    for answer in ANSWERS:
        length = len(answer) + 1
        for k, token in enumerate([*answer, EOS], 1):
            omega = 1 - (k - 1) * (1 - last) / (length - 1)
            difference = [a - b for a, b in zip(logits[n], other[n], strict=True)]
            normal += omega * cross_entropy(logits[n], token)
            causal += omega * cross_entropy(difference, token)
            divisor += omega
            n += 1
    return normal / divisor + contrast * causal / divisor


@pytest.mark.parametrize("scale", [2.0, 100.0])
@pytest.mark.parametrize(("contrast", "last"), [(0.1, 0.25), (1.3, 0.0), (0.0, 1.0)])
def test_matches_loops(contrast, last, scale):
    logits, other = both_logits(scale)
    objective = CFT(contrast=contrast, last_weight=last)
    output = objective(tokens_of(ANSWERS, logits, other))
    loss = output.total / output.weight
    expected = naive(logits.tolist(), other.tolist(), contrast, last)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-10)
    count = len(logits)
    assert float(output.weight) == pytest.approx(objective.weight_of(count, 0), rel=1e-12)


def test_gradients_in_both_logits():
    logits, other = both_logits()

    def loss(*pair: Tensor) -> Tensor:
        output = CFT(contrast=0.7)(tokens_of(ANSWERS, *pair))
        return output.total / output.weight

    assert torch.autograd.gradcheck(loss, (logits, other))
    assert all(g.abs().max() > 0.01 for g in torch.autograd.grad(loss(logits, other), (logits, other)))


def test_early_tokens_weigh_most():
    step, length = torch.tensor([0.0, 1.0, 2.0, 0.0]), torch.tensor([3, 3, 3, 1])
    assert position_weights(step, length, 0.25).tolist() == [1.0, 0.625, 0.25, 0.625]


def test_without_contrast_and_with_equal_weights_it_is_sft():
    logits, other = both_logits()
    ours = CFT(contrast=0, last_weight=1)(tokens_of(ANSWERS, logits, other))
    sft = make_objective(ObjectiveConfig(name="sft"))(tokens_of(ANSWERS, logits, None))
    torch.testing.assert_close(ours.total / ours.weight, sft.total / sft.weight)


def test_a_share_without_windows():
    empty = torch.zeros(0, EOS + 1, requires_grad=True)
    output = CFT()(tokens_of([], empty, empty))
    output.total.backward()
    assert output.total.item() == output.weight.item() == 0


def test_what_cannot_work_is_named():
    logits, _ = both_logits()
    with pytest.raises(ConfigError, match="without a history"):
        CFT()(tokens_of(ANSWERS, logits, None))
    with pytest.raises(ConfigError, match=r"objective.contrast is -1"):
        ObjectiveConfig(name="cft", contrast=-1)
    with pytest.raises(ConfigError, match="last_weight is 2"):
        CFT(last_weight=2)
