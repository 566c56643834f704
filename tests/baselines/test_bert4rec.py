"""BERT4Rec: masks that hide what they say, a loss equal to a naive one, and a pattern that it must learn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from bearray.baselines import fit, view
from bearray.baselines.bert4rec import MASK, BERT4Rec
from bearray.baselines.data import PAD
from bearray.baselines.train import validate
from bearray.config import BERT4RecConfig, override
from bearray.data import Dataset
from tests.baselines.naive import check_same, encode, norm

TITLES = 9


@pytest.fixture(autouse=True)
def float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(**changes: Any) -> BERT4Rec:
    config = override(BERT4RecConfig(), {"hidden": 8, "max_history": 5, "dropout": 0.0, **changes})
    model = BERT4Rec(TITLES, config).double()
    with torch.no_grad():  # as large as after training, so that nothing is lost in rounding
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.3
            )
    return model


def scores(model: BERT4Rec, window: list[int], place: int) -> Tensor:
    """The logits at one place of one window without padding."""
    inputs = [model.mask[0] if title == MASK else model.items[title] for title in window]
    linear, _, last = model.head
    state = encode(model.encoder, inputs)[place]
    return model.items @ norm(gelu(linear.weight @ state + linear.bias), last) + model.bias


def test_the_loss_and_its_gradients_equal_a_naive_reference() -> None:
    model = make()
    titles = torch.tensor([[PAD, PAD, PAD, 2, 7, 2], [1, 4, 4, 8, 0, 3], [PAD, 3, 1, 2, 6, 0]])
    batch = SimpleNamespace(titles=titles, rng=np.random.default_rng(5))
    masked = model.draw_masks(titles.numpy() != PAD, np.random.default_rng(5))
    terms = []
    for row, hidden in zip(titles.tolist(), masked.tolist(), strict=True):
        window = [MASK if h else t for t, h in zip(row, hidden, strict=True) if t != PAD]
        truth = [t for t in row if t != PAD]
        for place, title in enumerate(window):
            if title == MASK:
                terms.append(-torch.log_softmax(scores(model, window, place), 0)[truth[place]])
    assert len(terms) == int(masked.sum()) > 3
    check_same(model, model.loss(batch), terms, len(terms))  # type: ignore[arg-type]


def test_a_masked_title_is_not_looked_at() -> None:
    """Windows that differ only in what is masked have the same scores there; a title that is not masked
    counts, before and after."""
    model = make().eval()
    seen: list[tuple[Tensor, Tensor]] = []
    original = model.scores
    model.scores = lambda titles, places: seen.append((titles, original(titles, places))) or seen[-1][1]  # type: ignore[method-assign,func-returns-value]
    window = torch.tensor([[1, 4, 2, 8, 0, 3]])
    masked = model.draw_masks(window.numpy() >= 0, np.random.default_rng(0))
    for step in range(4):
        other = torch.where(torch.from_numpy(masked), (window + step) % TITLES, window)
        model.loss(SimpleNamespace(titles=other, rng=np.random.default_rng(0)))  # type: ignore[arg-type]
    assert all(torch.equal(titles, seen[0][0]) and torch.equal(found, seen[0][1]) for titles, found in seen)
    asked = torch.tensor([[1, 4, MASK, 8, 0, 3]])
    before = original(asked, asked == MASK)
    for place in (0, 1, 3, 4, 5):
        other = asked.clone()
        other[0, place] = (other[0, place] + 2) % TITLES
        assert (original(other, other == MASK) - before).abs().max() > 1e-3


def test_masks_are_drawn_as_told() -> None:
    model = make(mask_ratio=0.3, last_share=0.25)
    real = np.ones((20_000, 6), dtype=bool)
    real[:, 0] = False
    masked = model.draw_masks(real, np.random.default_rng(0))
    assert not masked[:, 0].any() and masked.any(axis=1).all()
    alone = masked[:, -1] & (masked.sum(axis=1) == 1)
    others = 0.75 * (0.3 * 0.7**4 + 0.7**5 / 5)  # by chance, and where chance had masked none
    assert alone.mean() == pytest.approx(0.25 + others, abs=0.01)
    assert masked[:, 2].mean() == pytest.approx(0.75 * (0.3 + 0.7**5 / 5), abs=0.01)
    one = model.draw_masks(np.eye(4, dtype=bool), np.random.default_rng(1))
    assert (one == np.eye(4, dtype=bool)).sum() >= 12 and one.any(axis=1).all()


def test_a_history_is_asked_about_by_a_mask_after_it_and_padding_has_no_influence() -> None:
    model = make().eval()
    expected = scores(model, [4, 1, 3, MASK], 3)
    for history in ([4, 1, 3], [PAD, PAD, 4, 1, 3]):
        torch.testing.assert_close(model(torch.tensor([history]))[0], expected, rtol=1e-9, atol=1e-9)


def test_it_learns_a_planted_pattern(circle: Dataset) -> None:
    """Of 20 titles, each the title of two items: masks make the same windows teach less of each."""
    torch.set_default_dtype(torch.float32)
    config = override(
        BERT4RecConfig(),
        {
            "hidden": 32,
            "layers": 1,
            "max_history": 6,
            "dropout": 0.0,
            "last_share": 0.6,
            "train.epochs": 40,
            "train.batch_size": 16,
            "train.lr": 5e-3,
        },
    )
    data = view(circle, {item: (item - 1) % 20 for item in range(1, 41)}, max_history=6)
    model = BERT4Rec(data.num_titles, config)
    assert validate(model, data.test, data.num_titles)["hr@1"] < 0.2
    fit(model, data, config.train)
    assert validate(model, data.test, data.num_titles)["hr@1"] > 0.97
