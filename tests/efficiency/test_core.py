"""Rounds, their order, and what is timed in them: with contenders that only write down what is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bearray.efficiency.core import Clock, measure, round_order, time_round, warm_up
from bearray.efficiency.energy import EnergyMeter

LABELS = ["sft", "bear", "sdpo", "cft"]


class Body(nn.Module):
    def forward(self, *, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
        return (input_ids.float(),)


class Written:
    """Two pieces a turn; a piece of the k-th label takes k + 1 seconds of a clock that it turns itself."""

    def __init__(self) -> None:
        self.labels = LABELS
        self.pad_token_id = 0
        self.now = 0.0
        self.log: list[tuple[Any, ...]] = []
        self._body = Body()

    def body(self, label: str) -> nn.Module:
        return self._body

    def begin(self, label: str, number: int) -> list[Callable[[], None]]:
        self.log.append(("begin", label, number))
        self.now += 100.0  # untimed
        return [partial(self.work, label, number, piece) for piece in range(2)]

    def work(self, label: str, number: int, piece: int) -> None:
        self.log.append(("work", label, number, piece))
        self.now += LABELS.index(label) + 1
        self._body(input_ids=torch.tensor([[0, 5, 6]]))

    def weights(self, label: str) -> list[float]:
        return [0.5, 0.5]

    def size(self, number: int) -> int:
        return 10 * (number + 1)


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()
    monkeypatch.setattr("bearray.efficiency.core.time.perf_counter", lambda: written.now)
    monkeypatch.setattr("bearray.efficiency.core.time.process_time", lambda: 3 * written.now)
    return written


def parts() -> dict[str, Any]:
    return {"seed": 7, "clock": Clock(torch.device("cpu")), "energy": EnergyMeter(enabled=False)}


@pytest.mark.parametrize(("wanted", "joules"), [(True, 12.0), (False, None)])
def test_the_energy_of_all_machines_is_added_up(
    contenders: Written, wanted: bool, joules: float | None
) -> None:
    """Two workers on two machines; this one meters nothing, the other one 12 joules a turn."""

    class Two(Clock):
        def reduce(self, values: Any, how: str) -> list[float]:
            return [v + 12.0 for v in values] if how == "sum" and list(values) == [0.0] else list(values)

    meter = EnergyMeter(enabled=False)
    meter.enabled = wanted
    record = time_round(contenders, 0, seed=7, clock=Two(torch.device("cpu")), energy=meter)
    assert {turn["joules"] for turn in record["turns"].values()} == {joules}


def test_the_order_is_drawn_for_each_round_and_depends_on_seed_and_round_alone() -> None:
    orders = [tuple(round_order(LABELS, 0, n)) for n in range(200)]
    assert all(sorted(order) == sorted(LABELS) for order in orders)
    assert orders == [tuple(round_order(LABELS, 0, n)) for n in range(200)]
    assert orders != [tuple(round_order(LABELS, 1, n)) for n in range(200)]
    assert len(set(orders)) == 24
    for place in range(4):  # no label is always early or late, or its times would be those of a warm machine
        counts = [sum(order[place] == label for order in orders) for label in LABELS]
        assert min(counts) > 25


def test_a_round_times_the_work_and_nothing_else(contenders: Written) -> None:
    record = time_round(contenders, 3, **parts())
    assert record["round"] == 3 and record["size"] == 40
    assert record["order"] == round_order(LABELS, 7, 3) == list(record["turns"])
    for i, label in enumerate(LABELS):
        turn = record["turns"][label]
        assert turn == {"seconds": [i + 1.0] * 2, "cpu_seconds": [3 * (i + 1.0)] * 2, "joules": None}
    wanted = []
    for label in record["order"]:
        wanted += [("begin", label, 3), ("work", label, 3, 0), ("work", label, 3, 1)]
    assert contenders.log == wanted


@pytest.mark.parametrize(("pieces", "begun"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_warm_up_does_as_many_pieces_as_asked(contenders: Written, pieces: int, begun: int) -> None:
    warm_up(contenders, pieces)
    for label in LABELS:
        assert sum(e[:2] == ("work", label) for e in contenders.log) == pieces
        assert sum(e[:2] == ("begin", label) for e in contenders.log) == begun


def test_only_the_rounds_asked_for_are_measured_and_each_is_handed_on_at_once(contenders: Written) -> None:
    found: list[Any] = []
    measure(
        contenders,
        rounds=[1, 4],
        warmup=1,
        counted=False,
        on_counts=lambda counts: found.append(("counts", dict(counts))),
        on_round=lambda record: found.append(("round", record["round"], len(contenders.log))),
        **parts(),
    )
    kinds = [entry[:2] for entry in found if entry[0] == "round"]
    assert kinds == [("round", 1), ("round", 4)]
    assert found[1][2] < found[2][2]  # the first was there before the second began
    counts = found[0][1]
    assert list(counts) == LABELS
    for count in counts.values():
        assert count["forward"] == [1, 1] and count["backward"] == [0, 0]
        assert count["tokens"] == [3, 3] and count["padding"] == [1, 1] and count["weights"] == [0.5, 0.5]


def test_what_was_counted_is_not_counted_again(contenders: Written) -> None:
    def refuse(_: Any) -> None:
        raise AssertionError("counted twice")

    measure(contenders, rounds=[], warmup=0, counted=True, on_counts=refuse, on_round=refuse, **parts())
    assert contenders.log == []
