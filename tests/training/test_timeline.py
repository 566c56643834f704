"""Steps and epochs of runs whose epochs differ."""

from __future__ import annotations

import pytest

from bearray.objectives import SFT, Draw, Round
from bearray.training.timeline import Timeline


def test_by_hand() -> None:
    loss = SFT()
    rounds = [Round(loss), Round(loss, draw=Draw(0, 5)), Round(loss, draw=Draw(1, 100)), Round(loss)]
    line = Timeline(rounds, windows=22, batch_size=8)
    assert [line.steps_of(e) for e in range(4)] == [3, 1, 3, 3]
    assert [line.first_step(e) for e in range(5)] == [0, 3, 4, 7, 10]
    assert line.total_steps == 10
    assert [line.epoch_of(s) for s in range(12)] == [0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 3]
    assert [line.epochs_done(s) for s in range(10)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 2, 7 / 3, 8 / 3, 3, 10 / 3, 11 / 3, 4]
    )
    for epoch in range(4):  # exactly: resuming compares with the number of finished epochs
        assert line.epochs_done(line.first_step(epoch + 1) - 1) == epoch + 1


def test_epochs_of_one_draw_continue_it() -> None:
    draws = [None, Draw(0, 5), Draw(0, 5), Draw(1, 5), None, None]
    line = Timeline([Round(SFT(), draw=draw) for draw in draws], windows=22, batch_size=8)
    assert [line.continues_draw(epoch) for epoch in range(7)] == [False, False, True, *[False] * 4]
