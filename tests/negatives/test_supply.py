"""Near and generated answers, and answers in tokens, on the demo data."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.batching import left_pad
from bearray.config import override
from bearray.decoding import constrained_beam_search
from bearray.errors import ConfigError
from bearray.extras import training_counts
from bearray.negatives import NearNegatives, OtherAnswers, check_negatives, title_embeddings
from bearray.objectives import NegativeSpec
from bearray.training.checks import check_objective

ROWS = [5, 0, 11, 3]


@pytest.fixture(scope="module")
def model(micro_task: Any) -> Any:
    return add_lora(load_model(micro_task.config.model.base, device="cpu"), micro_task.config.model)


def supply(spec: NegativeSpec, task: Any, model: Any, **changes: Any) -> OtherAnswers:
    config = override(task.config, {k.replace("__", "."): v for k, v in changes.items()})
    return OtherAnswers(spec, config, task, task.examples(), model, task.catalog.trie)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "near", "self"])
def test_every_kind_gives_as_many_as_wanted_and_never_the_target(kind, micro_task, model):
    others = supply(NegativeSpec(kind, 4), micro_task, model)
    assert others.uses_model == (kind == "self")
    examples = micro_task.examples()
    found = others(ROWS, step=2)
    assert [len({a.title for a in own}) for own in found] == [4] * 4
    trie, end = micro_task.catalog.trie, micro_task.eos_token_id
    for row, own in zip(ROWS, found, strict=True):
        for answer in own:
            assert answer.title != examples[row].target_title
            assert answer.tokens == [*micro_task.catalog.tokens[answer.title], end]
            assert answer.nodes == [
                0,
                *(trie.find(answer.tokens[: k + 1]) for k in range(len(answer.tokens) - 1)),
            ]
            assert (answer.score < 0) == (kind == "self")
    titles = [[a.title for a in own] for own in found]
    backwards = others(ROWS[::-1], step=2)
    assert [[a.title for a in own] for own in backwards] == titles[::-1]
    assert [[a.title for a in others([row], step=2)[0]] for row in ROWS] == titles
    assert others([], step=2) == []
    later = [[a.title for a in own] for own in others(ROWS, step=3)]
    assert (later == titles) == (kind == "self")  # chance is drawn anew at each step; the model is the same


def test_popular_negatives_come_from_training(micro_task, model):
    counts = training_counts(micro_task)
    found = supply(NegativeSpec("popularity", 5), micro_task, model)(range(22), step=0)
    assert all(counts[a.title] > 0 for own in found for a in own)


def test_embeddings_are_centred_means_of_token_embeddings(model):
    titles = [[5, 6, 7], [9], [5, 9]]
    weight = model.get_input_embeddings().weight.detach()
    means = torch.stack([weight[t].mean(0) for t in titles])
    wanted = means - means.mean(0)
    wanted /= wanted.norm(dim=1, keepdim=True)
    torch.testing.assert_close(title_embeddings(model, titles), wanted)


def test_near_means_near_and_leaves_the_history_out():
    angle = torch.arange(40) * 0.05
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    to_history = NearNegatives([7, 30], [[4, 6], [30, 31, 33]], circle, 3, seed=0)
    to_target = NearNegatives([7, 30], None, circle, 3, seed=0)
    for step in range(5):
        for supplier, (low, high) in ((to_history, (0, 24)), (to_target, (0, 28))):
            own = [d.title for d in supplier([0], step)[0]]
            assert len(set(own)) == 3 and 7 not in own and all(low <= t <= high for t in own)
        assert not {d.title for d in to_history([0], step)[0]} & {4, 6}
    all_that_are_left = NearNegatives([30], [[30, 31, 33]], circle, 37, seed=0)
    assert sorted(d.title for d in all_that_are_left([0], 0)[0]) == [
        t for t in range(40) if t not in (30, 31, 33)
    ]
    seen = {d.title for step in range(60) for d in to_target([1], step)[0]}
    assert seen == set(range(20, 41)) - {30, 40} | {19}  # the pool of the 20 nearest


def test_self_negatives_are_the_best_wrong_titles_and_rollouts_all_of_them(micro_task, model):
    examples = micro_task.examples()
    ids, mask = left_pad([examples[r].prompt for r in range(22)], micro_task.pad_token_id)
    best = constrained_beam_search(model, ids, mask, micro_task.catalog.trie, beam_width=7)
    titles = best.title_ids.tolist()
    assert any(
        e.target_title in own for e, own in zip(examples, titles, strict=True)
    )  # else nothing is tested
    model.train()
    rollouts = supply(NegativeSpec("rollout", 7), micro_task, model)(range(22), step=0)
    assert model.training  # decoding puts the model back as it was
    assert [[a.title for a in own] for own in rollouts] == titles
    scores = torch.tensor([[a.score for a in own] for own in rollouts])
    torch.testing.assert_close(scores, best.scores, rtol=1e-4, atol=1e-4)
    negatives = supply(NegativeSpec("self", 6), micro_task, model)(range(22), step=0)
    for example, own, all_of_them in zip(examples, negatives, titles, strict=True):
        assert [a.title for a in own] == [t for t in all_of_them if t != example.target_title][:6]


def test_too_few_found_are_filled_up(micro_task, model, monkeypatch):
    from bearray.negatives import generated

    def finds_two(*args: Any, **options: Any) -> Any:
        result = constrained_beam_search(*args, **options)
        result.title_ids[:, 2:] = -1
        return result

    monkeypatch.setattr(generated, "constrained_beam_search", finds_two)
    found = supply(NegativeSpec("self", 5), micro_task, model)(ROWS, step=0)
    for row, own in zip(ROWS, found, strict=True):
        titles = [a.title for a in own]
        assert len(set(titles)) == 5 and micro_task.examples()[row].target_title not in titles
        assert [a.score < 0 for a in own] == sorted((a.score < 0 for a in own), reverse=True)
    assert [len(own) for own in supply(NegativeSpec("rollout", 5), micro_task, model)(ROWS, step=0)] == [
        2
    ] * 4


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("uniform", r"wants 63 uniform answers beside each target, but the catalogue has 63 titles"),
        ("self", r"wants 63 self answers"),
        ("near", r"the target and up to \d+ of a history are left out"),
        (
            "popularity",
            r"titles occur in the training split, the target among them; lower objective\.negatives",
        ),
        ("rollout", r"wants 64 rollout answers .* lower objective\.rollouts to 63 or less"),
    ],
)
def test_more_answers_than_titles_fail_before_training(kind, message, micro_task):
    count = len(micro_task.catalog) + (kind == "rollout")
    config = override(micro_task.config, {"objective.name": "sdpo"})
    with pytest.raises(ConfigError, match=message) as caught:
        check_negatives(NegativeSpec(kind, count), config, micro_task)
    room = int(re.search(r"to (\d+) or less", str(caught.value))[1])
    check_negatives(NegativeSpec(kind, room), config, micro_task)
    with pytest.raises(ConfigError):
        check_negatives(NegativeSpec(kind, room + 1), config, micro_task)


def test_the_sweeps_check_knows(micro_task):
    config = override(micro_task.config, {"objective.name": "sdpo", "objective.negatives": 63})
    with pytest.raises(ConfigError, match="'sdpo' wants 63 uniform answers"):
        check_objective(config, micro_task)
    check_objective(override(config, {"objective.negatives": 62}), micro_task)
    missing = override(config, {"objective.negatives": 3, "train.init_adapter": "/no/such/folder"})
    with pytest.raises(ConfigError, match=r"train\.init_adapter is '/no/such/folder', which does not exist"):
        check_objective(missing, micro_task)
    rollouts = override(config, {"objective.name": "grpo", "objective.rollouts": 64})
    with pytest.raises(ConfigError, match=r"'grpo' wants 64 rollout .* lower objective\.rollouts to 63"):
        check_objective(rollouts, micro_task)
    for name in ("grpo", "best_of_n", "flower", "rosepo"):
        changes = {"objective.name": name, "objective.rollouts": 63, "objective.smoothing": None}
        check_objective(override(config, {**changes, "objective.negatives": 1}), micro_task)
