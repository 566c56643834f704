"""Thresholds inside the training step: those of a search of its own, with and without the pass's own keys."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bearray.batching import Example, collate, left_pad
from bearray.config import RunConfig, override
from bearray.decoding.network import open_network
from bearray.decoding.thresholds import beam_thresholds
from bearray.errors import ConfigError
from bearray.forward import hidden_states, use_tree_attention
from bearray.objectives.beam_simulation import BeamSimulation
from bearray.simulation import batch_thresholds, is_deterministic
from bearray.step import TrainStep
from bearray.training.checks import check_objective
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, FAMILIES, PAD, random_catalogue, random_prompts, tiny_model

torch.set_num_threads(1)
TITLES = random_catalogue(8, 70)
TRIE = TokenTrie.from_sequences(TITLES)


def examples(lengths=(12, 30, 21, 9)):
    """Windows with prompts of different lengths."""
    ids, mask = random_prompts(5, list(lengths))
    nodes = TRIE.path_nodes(TITLES)
    chosen = [3, 40, 11, 62]
    return [
        Example(
            prompt=ids[i][mask[i].bool()].tolist(), answer=[*TITLES[t], EOS], nodes=nodes[t], target_title=t
        )
        for i, t in enumerate(chosen)
    ]


def expected_thresholds(model, windows, normalize):
    """From a search of the prompts alone, to its end."""
    ids, mask = left_pad([e.prompt for e in windows], PAD)
    table = beam_thresholds(model, ids, mask, TRIE, beam_width=5, normalize=normalize)
    lengths = torch.tensor([len(e.answer) for e in windows])
    behind = torch.arange(int(lengths.max())) >= lengths[:, None]
    return table[:, : behind.shape[1]].masked_fill(behind, -torch.inf)


def with_adapter(family="llama", dropout=0.0, **settings):
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    return get_peft_model(tiny_model(31, family, **settings), config)


@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize("start", [[], [5, 9, 31, 7]], ids=["nothing shared", "shared start"])
@pytest.mark.parametrize("how", ["tree", "padded"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [(family, {}) for family in FAMILIES]
    + [("mistral", {"sliding_window": 6}), ("gemma2", {"sliding_window": 6})],
)
def test_keys_of_the_training_pass_give_the_same_thresholds(
    family, settings, how, start, normalize, monkeypatch
):
    model, windows = with_adapter(family, **settings).train(), examples()
    windows = [replace(e, prompt=start + e.prompt) for e in windows]
    if how == "tree":
        assert use_tree_attention(model, "cpu") == (family != "gemma2")  # eager: it reads padded rows
    # Over the trie, the step is given no forced tokens; their thresholds count all the same.
    batch = collate(windows, PAD, choices=TRIE if normalize == "trie" else None)
    given = []

    def spy(*args, **options):
        given.append((options["keys"] is not None, batch_thresholds(*args, **options)))
        return given[-1][1]

    monkeypatch.setattr("bearray.step.batch_thresholds", spy)
    objective = BeamSimulation(beam_width=5, vocabulary=normalize)
    output = TrainStep(model, objective, TRIE, EOS)(batch)
    (reused, thresholds), expected = given[0], expected_thresholds(model, windows, normalize)
    assert reused
    torch.testing.assert_close(thresholds, expected, rtol=1e-4, atol=3e-5)
    assert (thresholds > -torch.inf).sum() == sum(len(e.answer) for e in windows)
    output.total.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_with_dropout_the_prompts_are_read_again_without_it(normalize):
    model, windows = with_adapter(dropout=0.5).train(), examples()
    assert not is_deterministic(model)
    network = open_network(model, EOS)
    batch = collate(windows, PAD)
    thresholds = batch_thresholds(network, batch, TRIE, beam_width=5, normalize=normalize)
    torch.testing.assert_close(
        thresholds, expected_thresholds(model, windows, normalize), rtol=1e-4, atol=3e-5
    )
    assert model.training and not is_deterministic(model)  # put back
    output = TrainStep(model, BeamSimulation(beam_width=5, vocabulary=normalize), TRIE, EOS)(batch)
    output.total.backward()


def test_the_gradient_is_the_formulas():
    """Through the whole step: logits of plain passes, thresholds as constants, loops in the loss."""
    model, windows = with_adapter().train(), examples()
    batch = collate(windows, PAD, choices=TRIE)
    assert batch.num_answer_tokens > len(batch.targets)
    output = TrainStep(model, BeamSimulation(lam=0.9, xi=0.5, beam_width=5), TRIE, EOS)(batch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(output.total / output.weight, parameters)
    theta = expected_thresholds(model, windows, "trie").tolist()
    total, count = 0.0, 0
    for row, e in enumerate(windows):
        logits = model(input_ids=torch.tensor([e.prompt + e.answer[:-1]])).logits[0, len(e.prompt) - 1 :]
        c = 0.0
        for step, (token, node) in enumerate(zip(e.answer, e.nodes, strict=True)):
            valid, _ = TRIE.candidates(torch.tensor([node]), EOS)
            log_p = logits[step, token] - logits[step, valid[0]].logsumexp(0)
            c = c + log_p
            total = total - log_p + 0.9 * torch.nn.functional.logsigmoid((theta[row][step] - c) / 0.5)
            count += 1
    expected = torch.autograd.grad(total / count, parameters)
    assert (output.total / output.weight).item() == pytest.approx(float((total / count).detach()), rel=1e-5)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_an_empty_share_has_no_thresholds():
    model = with_adapter()
    batch = collate([], PAD)
    assert len(batch_thresholds(open_network(model, EOS), batch, TRIE, beam_width=5, normalize="trie")) == 0
    assert float(TrainStep(model, BeamSimulation(beam_width=5), TRIE, EOS)(batch).total) == 0
    assert hidden_states(model, batch).shape[0] == 1


def test_zero_stage_3_is_refused_before_training():
    """Workers' searches take different numbers of passes, and stage 3 gathers weights in each."""
    task = SimpleNamespace(catalog=SimpleNamespace(trie=TRIE))
    config = override(RunConfig(), {"objective.name": "beam_simulation", "train.zero_stage": 3})
    with pytest.raises(ConfigError, match=r"set train\.zero_stage to 2 or less"):
        check_objective(config, task)
    check_objective(override(config, {"train.zero_stage": 2}), task)
