"""What objectives are given beyond logits and trie, on the demo data."""

from __future__ import annotations

import pytest
import torch

from bearray.batching import Answer, collate
from bearray.extras import PROVIDED, Extras, training_counts
from bearray.objectives import Flow, information_gain, node_entropy


@pytest.fixture
def batch(micro_task):
    examples = micro_task.examples()
    others = [[Answer(examples[k].answer, examples[k].nodes, examples[k].target_title)] for k in (7, 2, 9)]
    return collate(examples[:3], micro_task.pad_token_id, others)


def test_counts_entropies_and_flows_of_each_token(micro_task, batch) -> None:
    trie, counts = micro_task.catalog.trie, torch.from_numpy(training_counts(micro_task))
    names = {"popularity", "information_gain", "flow", "stop_flow"}
    values = Extras(micro_task, trie, names)(batch)
    assert values.keys() == names
    flow, stop = Flow.of(trie, counts).of_tokens(batch.nodes, batch.instance)
    wanted = {
        "popularity": counts[batch.answers.title[batch.instance]],
        "information_gain": information_gain(node_entropy(trie, counts), batch.nodes, batch.instance),
        "flow": flow,
        "stop_flow": stop,
    }
    for name, value in wanted.items():
        torch.testing.assert_close(values[name], value)
        assert value.shape == batch.targets.shape and value.unique().numel() > 1
    # a title's flows and its final stop multiply to its share of all choices
    for title in batch.answers.title.unique().tolist():
        own = batch.answers.title[batch.instance] == title
        log_share = flow[own].sum() / (batch.answers.title == title).sum()
        torch.testing.assert_close(log_share.exp(), counts[title] / counts.sum().double())


@pytest.mark.parametrize("name", ["popularity", "information_gain", "flow", "stop_flow"])
def test_one_alone(name, micro_task, batch) -> None:
    values = Extras(micro_task, micro_task.catalog.trie, {name, "trie", "negatives"})(batch)
    assert name in values and values.keys() <= {name, "flow", "stop_flow"}


def test_scores_are_provided_where_somebody_gives_them(micro_task, batch) -> None:
    trie, needs = micro_task.catalog.trie, {"user_scores"}
    without = Extras(micro_task, trie, needs)
    assert without.provided == PROVIDED - {"user_scores"} and without.of_windows(batch) == {}
    given = Extras(micro_task, trie, needs, lambda rows: rows[:, None].repeat(1, 5))
    assert given.provided == PROVIDED
    assert given.of_windows(batch)["user_scores"].tolist() == [[r] * 5 for r in batch.row.tolist()]
    assert Extras(micro_task, trie, set(), lambda rows: rows).of_windows(batch) == {}
