"""Several answers behind one prompt: each as it would be alone, whatever the model's attention looks like."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.batching import Answer, Example, collate
from bearray.config import ObjectiveConfig
from bearray.errors import ModelError
from bearray.forward import hidden_states, project, use_tree_attention
from bearray.objectives import AnswerTokens, LossOutput, Objective, make_objective
from bearray.step import TrainStep
from bearray.tree_attention import TREE_ATTENTION
from bearray.trie import TokenTrie

from .decoding.helpers import EOS, PAD, random_catalogue, tiny_model

torch.set_num_threads(1)

MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-eager": {"attn_implementation": "eager"},
    "qwen2": {},
    "qwen2-window": {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"tie_word_embeddings": True},
    "qwen3-window": {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1},
    "mistral": {"sliding_window": 6},
    "gemma2": {"sliding_window": 5, "final_logit_softcapping": 8.0},
}
READS_TREES = {name: name not in ("llama-eager", "gemma2") for name in MODELS}
CATALOGUE = random_catalogue(3, 40)
TRIE = TokenTrie.from_sequences(CATALOGUE)


def answer(title: int) -> Answer:
    (path,) = TRIE.path_nodes([CATALOGUE[title]])
    return Answer([*CATALOGUE[title], EOS], [int(n) for n in path], title, score=-float(title))


def windows(seed: int, counts: list[int], shared: int = 0) -> tuple[list[Example], list[list[Answer]]]:
    """Prompts of different lengths with `shared` tokens in common; `counts[r]` other answers for window r."""
    rng = random.Random(seed)
    start = [rng.randrange(3, 120) for _ in range(shared)]
    examples, others = [], []
    for row, count in enumerate(counts):
        target, *more = (answer(t) for t in rng.sample(range(len(CATALOGUE)), count + 1))
        # The first token tells the rows apart, so that no more than `shared` is shared.
        prompt = [*start, 3 + row, *(rng.randrange(3, 120) for _ in range(rng.randint(0, 10)))]
        examples.append(Example(prompt, target.tokens, target.nodes, target.title, row=10 + row))
        others.append(more)
    return examples, others


@pytest.mark.parametrize("shared", [0, 9])
@pytest.mark.parametrize("how", ["tree", "padded"])
@pytest.mark.parametrize("counts", [[3, 0, 1, 4], [0, 0, 0]], ids=["others", "targets only"])
@pytest.mark.parametrize("name", MODELS)
def test_every_answer_is_as_it_would_be_alone(name, counts, how, shared) -> None:
    """As plain rows of the library's own model, a row for each answer."""
    model = tiny_model(1, name.split("-")[0], **MODELS[name]).train()
    examples, others = windows(5, counts, shared)
    packed = collate(examples, PAD, others)
    assert packed.layout.shared == shared
    answers = [
        (e.prompt, a)
        for e, more in zip(examples, others, strict=True)
        for a in (Answer(e.answer, e.nodes, e.target_title), *more)
    ]
    plain = []
    for prompt, a in answers:
        ids = torch.tensor([prompt + a.tokens[:-1]])
        plain.append(model(input_ids=ids).logits[0, len(prompt) - 1 :])
    assert packed.targets.tolist() == [t for _, a in answers for t in a.tokens]
    if how == "tree":
        assert use_tree_attention(model, "cpu") == READS_TREES[name] and model.training
    logits = project(model, hidden_states(model, packed)[packed.position]), torch.cat(plain)
    scale = float(logits[1].detach().abs().max())
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5 * scale)
    # and so are the gradients of any loss of them
    weight = torch.randn(logits[0].shape, generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad((x.log_softmax(-1) * weight).sum(), parameters, allow_unused=True) for x in logits
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("shared", [0, 9])
def test_every_token_is_computed_once(shared: int) -> None:
    model, seen = tiny_model(1), []
    assert use_tree_attention(model, "cpu")
    model.model.layers[0].mlp.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[:2].numel())
    )
    examples, others = windows(5, [3, 0, 1], shared)
    batch = collate(examples, PAD, others)
    hidden_states(model, batch)
    answers = [[e.answer, *(a.tokens for a in more)] for e, more in zip(examples, others, strict=True)]
    tokens = shared + sum(len(e.prompt) - shared for e in examples)
    tokens += sum(len(a) - 1 for own in answers for a in own)
    assert seen == [tokens] == [batch.tokens]


def test_with_several_windows_to_look_through_padding_is_never_seen() -> None:
    """NaN in the embedding that padding would have spreads to whatever sees it."""
    model = tiny_model(2)
    with torch.no_grad():
        model.model.embed_tokens.weight[PAD] = torch.nan
    examples, others = windows(3, [0, 2, 1], 4)
    batch = collate(examples, PAD, others)
    assert PAD not in batch.input_ids and use_tree_attention(tiny_model(2), "cpu")
    model.config._attn_implementation = TREE_ATTENTION
    assert hidden_states(model, batch).isfinite().all()


def test_a_layout_is_made_of_whole_rows() -> None:
    examples, others = windows(5, [3, 0, 1], 6)
    layout = collate(examples, PAD, others).layout
    real = layout.branch >= 0
    assert layout.grid[real].tolist() == list(range(6, 6 + int(real.sum())))
    assert layout.flat.tolist() == real.flatten().nonzero()[:, 0].tolist()
    assert layout.visible().any(-1).all()  # no softmax over nothing, padding included
    assert (
        not layout.visible()[:, :, 6:]
        .transpose(1, 2)[~real]
        .logical_and(real[:, None].expand(-1, real.shape[1], -1)[~real])
        .any()
    )


def test_the_window_of_a_model_is_narrow_enough_to_matter() -> None:
    """Else the comparison above would not notice a mask that forgets it."""
    examples, others = windows(5, [3, 0, 1, 4])
    batch = collate(examples, PAD, others)
    for family in ("mistral", "gemma2"):
        states = []
        for width in (MODELS[family]["sliding_window"], 64):
            model = tiny_model(1, family, **{**MODELS[family], "sliding_window": width})
            states.append(hidden_states(model, batch)[batch.position])
        assert not torch.allclose(*states, rtol=1e-2, atol=1e-2)


def test_attention_without_masks_is_refused() -> None:
    model = tiny_model(1)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="flash_attention_2"):
        hidden_states(model, collate(*windows(0, [1])[:1], PAD, windows(0, [1])[1]))


def test_without_other_answers_padded_rows_are_read_causally(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, _ = windows(2, [0, 0, 0])
    batch = collate(examples, PAD, [[], [], []])
    assert not batch.layout.has_answers_aside and not batch.answers.has_others
    model, seen = tiny_model(1), {}
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **kwargs: seen.update(kwargs) or forward(**kwargs))
    hidden_states(model, batch)
    assert seen["attention_mask"] is None and seen["position_ids"] is None


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_batch_says_whose_every_token_is(counts: list[int], seed: int) -> None:
    examples, others = windows(seed, counts)
    batch = collate(examples, PAD, others)
    answers = batch.answers
    assert answers.num_windows == len(examples) and answers.has_others == any(counts)
    wanted = [
        (r, k == 0, a.title, a.score if k else 0.0, a)
        for r, (e, more) in enumerate(zip(examples, others, strict=True))
        for k, a in enumerate((Answer(e.answer, e.nodes, e.target_title), *more))
    ]
    columns = (answers.window, answers.is_target, answers.title, answers.score)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == [w[:4] for w in wanted]
    assert answers.length.tolist() == [len(w[4].tokens) for w in wanted]
    assert batch.row.tolist() == [e.row for e in examples]
    layout, n = batch.layout, 0
    for i, (r, _, _, _, own) in enumerate(wanted):
        for k, token in enumerate(own.tokens):
            assert (int(batch.instance[n]), int(batch.step[n])) == (i, k)
            assert (int(batch.targets[n]), int(batch.nodes[n])) == (token, own.nodes[k])
            place = int(batch.position[n])
            column = layout.grid[r].tolist().index(place)
            read = batch.input_ids[layout.full_grid[r]][layout.visible()[r, column]].tolist()
            assert read == examples[r].prompt + own.tokens[:k]  # all that came before, and nothing else
            assert int(batch.position_ids[place]) == len(examples[r].prompt) + k - 1
            n += 1
    assert n == len(batch.targets)


class OfTargets:
    """An objective that is given the targets' tokens only."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.seen = objective, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        self.seen.append(tokens)
        return self.objective(tokens.targets_only())


def test_a_loss_that_knows_only_targets_can_be_given_only_them() -> None:
    model = tiny_model(4)
    examples, others = windows(8, [2, 3, 0])
    for name in ("sft", "msl", "bear"):
        objective = make_objective(ObjectiveConfig(name=name, beam_width=3))
        step = TrainStep(model, OfTargets(objective), TRIE, EOS)
        seen = step.objective.seen
        packed, plain = step(collate(examples, PAD, others)), step(collate(examples, PAD))
        torch.testing.assert_close(packed.total, plain.total, rtol=1e-4, atol=1e-4)
        assert packed.weight == plain.weight
        assert len(seen[0].targets) > len(seen[1].targets)
        # the common metrics of a loss over all answers are those of the targets
        log_probs, column = objective.log_probs(seen[0])
        metrics = objective.common_metrics(seen[0], -log_probs.gather(1, column[:, None])[:, 0])
        for metric, (value, count) in metrics.items():
            torch.testing.assert_close(value, plain.metrics[metric][0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(count, plain.metrics[metric][1])


def test_other_answers_of_other_windows_are_an_error() -> None:
    examples, others = windows(0, [1, 1])
    with pytest.raises(ValueError, match="2 examples, but other answers for 1"):
        collate(examples, PAD, others[:1])
