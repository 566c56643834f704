"""A process that decodes the test split is killed: its shard is made again, and every count is right."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bearray.config import RunConfig
from bearray.evaluation import evaluate, evaluate_run
from bearray.runs import Storage
from tests.faults.gated_decoder import GatedDecoder
from tests.faults.helpers import Undisturbed, assert_predicted_as_undisturbed, compare
from tests.faults.sweep_process import GATES, Gates
from tests.faults.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Gates:
    """Made before Ray starts, whose processes are told of it by their environment."""
    folder = tmp_path_factory.mktemp("gates")
    os.environ[GATES] = str(folder)
    return Gates(folder)


def test_an_actor_killed_in_the_middle_of_a_shard(
    gates: Gates,
    local_ray: None,
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config, folder = fault_run({"train.num_workers": 1}), Storage(str(tmp_path / "run"))
    expected = undisturbed(config)
    monkeypatch.setattr(evaluate, "ShardDecoder", GatedDecoder)
    gates.close("shard trie 1")
    killed: list[int] = []

    def kill() -> None:
        killed.append(wait_for(lambda: gates.waiting("shard trie 1"), "actor in its second shard"))
        os.kill(killed[0], signal.SIGKILL)
        gates.close()

    killer = threading.Thread(target=kill)
    killer.start()
    measured = evaluate_run(config, expected.checkpoint, folder)
    killer.join()

    compare(measured["test"], expected.test)
    for name, place in (("trie", "predictions"), ("full", "predictions_full")):
        assert_predicted_as_undisturbed(folder.child(place), expected, name)
    shards = [f"shard {decoded} {number}" for decoded in ("trie", "full") for number in range(3)]
    assert gates.count() == {point: 1 + (point == "shard trie 1") for point in shards}
    makers = [line["pid"] for line in gates.passed() if line["point"] == "shard trie 1"]
    assert makers[0] == killed[0] != makers[1]
