"""Vectors of items and users: where they come from, and that they come back from a file as they were."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.backbones.soft import UserTable, soft_embedding, soft_token
from bearray.baselines import load_or_train_sasrec
from bearray.baselines.data import view
from bearray.config import override
from bearray.errors import DataError, ModelError
from bearray.task import load_task
from bearray.vectors import FrozenVectors, aligned, attach_new, attach_saved, make_vectors, save_soft
from bearray.vectors.aligned import align, load_or_align
from bearray.vectors.attach import PROJECTOR
from bearray.vectors.frozen import FILE
from bearray.vectors.texts import by_language_model, by_sentence_encoder


@pytest.fixture(scope="module")
def base(micro_base: Path) -> Any:
    return load_model(str(micro_base), device="cpu")


@pytest.fixture(scope="module")
def tasks(soft_run) -> dict[str, Any]:
    return {name: load_task(soft_run(name)) for name in ("llara", "allmrec")}


@pytest.fixture(scope="module")
def vectors(tasks, base) -> dict[str, FrozenVectors]:
    return {name: made(task, base) for name, task in tasks.items()}


def made(task: Any, base: Any) -> FrozenVectors:
    config = task.config.model.soft
    return make_vectors(config, task.backbone, task.dataset, task.catalog, base, progress=False)


def sasrec_of(task: Any) -> Any:
    soft = task.config.model.soft
    return load_or_train_sasrec(task.dataset, task.catalog.title_of_item, soft.sasrec, progress=False)


def test_items_are_sasrecs_table_and_users_its_states(tasks, vectors) -> None:
    fitted = sasrec_of(tasks["llara"])
    numbers = torch.tensor([3, 0, 3])
    found = vectors["llara"].lookup("item", numbers)
    torch.testing.assert_close(found, fitted.model.items.detach()[numbers])
    assert vectors["llara"].widths() == {"item": 8}

    task, ours = tasks["allmrec"], vectors["allmrec"]
    cases = task.cases("test")[:3]
    numbers = torch.tensor([case.prompt[0] - soft_token("user", 0) for case in cases])
    states = ours.lookup("user", numbers)
    # A score of SASRec is the product of its state and the item: only the states of these histories fit.
    scores = fitted.title_scores([case.history_titles for case in cases])
    torch.testing.assert_close(states @ fitted.model.items.detach().T, scores, rtol=1e-4, atol=1e-5)
    assert ours.widths() == {"item": 128, "user": 8}
    long = list(cases[0].history_titles) * 10
    number = torch.tensor([task.backbone.users.number(long)])
    newest = torch.tensor([task.backbone.users.number(long[-10:])])
    torch.testing.assert_close(ours.lookup("user", number), ours.lookup("user", newest))


def test_files_hold_all_that_there_is(vectors, tasks, tmp_path) -> None:
    for name, own in vectors.items():
        folder = tmp_path / name
        folder.mkdir()
        own.save(folder)
        again = FrozenVectors.read(folder, own.users)
        assert again.widths() == own.widths()
        for key, value in own.tensors().items():
            assert torch.equal(again.tensors()[key], value), key
    cases = tasks["allmrec"].cases("test")[:2]
    numbers = torch.tensor([case.prompt[0] - soft_token("user", 0) for case in cases])
    assert torch.equal(again.lookup("user", numbers), vectors["allmrec"].lookup("user", numbers))


@pytest.mark.parametrize("wrong", ["cut", "items", "width", "layers", "endless", "places", "nan", "gone"])
def test_damaged_files_are_named(wrong, vectors, tmp_path) -> None:
    vectors["allmrec"].save(tmp_path)
    file = tmp_path / FILE
    if wrong == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    elif wrong == "gone":
        file.unlink()
    else:
        own = FrozenVectors.read(tmp_path, UserTable())
        if wrong == "items":
            own.items = own.items[0]
        elif wrong == "nan":
            own.items[1, 2] = torch.nan
        elif wrong in ("endless", "places"):  # sizes that nothing may be built of
            own.config = override(own.config, {"layers" if wrong == "endless" else "max_history": 10**9})
        elif wrong == "width":
            own.config = override(own.config, {"hidden": 4})
        else:
            own.config = override(own.config, {"layers": 2})
        own.save(tmp_path)
    with pytest.raises((DataError, FileNotFoundError), match=FILE):
        FrozenVectors.read(tmp_path, UserTable())


def test_stage_one_is_trained_once_for_the_same_content(tasks, vectors, base, monkeypatch) -> None:
    calls: list[int] = []
    real = aligned.align
    monkeypatch.setattr(aligned, "align", lambda *a, **o: calls.append(1) or real(*a, **o))
    again = made(tasks["allmrec"], base)
    assert not calls and torch.equal(again.items, vectors["allmrec"].items)
    other = load_model(tasks["allmrec"].config.model.base, device="cpu")
    with torch.no_grad():
        other.model.layers[1].self_attn.q_proj.weight[0, 0] += 1  # as an adapter that was merged would
    assert not torch.equal(made(tasks["allmrec"], other).items, again.items) and calls == [1]


def test_stage_one_brings_items_and_texts_together(tasks, vectors, monkeypatch) -> None:
    """Texts are of two kinds, which one of eight numbers of SASRec's tells apart; in the common space it
    counts for more than the others."""
    task, sasrec = tasks["allmrec"], copy.deepcopy(vectors["allmrec"].sasrec)
    data = view(task.dataset, task.catalog.title_of_item, max_history=10)
    rng = torch.Generator().manual_seed(0)
    sasrec.items.data = torch.randn(sasrec.items.shape, generator=rng)
    kind = torch.arange(len(sasrec.items)) % 2
    sasrec.items.data[:, 0] = 2.0 * kind - 1
    texts = torch.randn(2, 24, generator=rng)[kind]
    monkeypatch.setattr(aligned, "LR", 1e-2)

    def apart(found: torch.Tensor) -> float:
        assert found.shape == (len(sasrec.items), 128) and not found.requires_grad
        means = torch.stack([found[kind == k].mean(0) for k in (0, 1)])
        within = torch.cat([found[kind == k] - means[k] for k in (0, 1)])
        return float((means[0] - means[1]).norm() / within.norm(dim=1).mean())

    short = align(sasrec, texts, data, epochs=1, seed=0)
    assert apart(align(sasrec, texts, data, epochs=12, seed=0)) > 1.3 * apart(short)
    assert torch.equal(short, align(sasrec, texts, data, epochs=1, seed=0))
    assert not torch.equal(short, align(sasrec, texts, data, epochs=1, seed=1))


def test_a_kept_file_that_is_damaged_is_made_again(tasks, vectors, tmp_path, caplog) -> None:
    task, sasrec = tasks["allmrec"], vectors["allmrec"].sasrec
    data = view(task.dataset, task.catalog.title_of_item, max_history=10)
    texts = torch.randn(len(sasrec.items), 5)
    options: dict[str, Any] = {"epochs": 1, "seed": 0, "cache_dir": tmp_path}
    first = load_or_align(["a"], sasrec, lambda: texts, lambda: data, **options)
    [file] = tmp_path.glob("*/items.safetensors")
    file.write_bytes(b"broken")
    again = load_or_align(["a"], sasrec, lambda: texts, lambda: data, **options)
    assert torch.equal(first, again) and "trained anew" in caplog.text
    load_or_align(["b"], sasrec, lambda: texts, lambda: data, **options)
    assert len(list(tmp_path.glob("*/items.safetensors"))) == 2


def test_texts_by_the_language_model_are_means_of_last_states(tasks, base) -> None:
    tokens = [list(t) for t in tasks["llara"].catalog.tokens] + [[5, 6, 7, 8]] * 5
    found = by_language_model(base, tokens)
    assert found.shape == (len(tokens), 32) and len(tokens) > 64 and found.dtype == torch.float32
    for row in (0, 31, len(tokens) - 1):
        with torch.no_grad():
            alone = base.model(input_ids=torch.tensor([tokens[row]])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found[row], alone, rtol=1e-4, atol=1e-5)


def test_texts_by_a_sentence_encoder(tasks, tmp_path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    tokenizer = tasks["llara"].backbone.tokenizer
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = tasks["llara"].catalog.titles[:5]
    found = by_sentence_encoder(str(tmp_path), texts, torch.device("cpu"))
    for row, text in enumerate(texts):
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        torch.testing.assert_close(found[row], states[0].mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"model.soft.text_encoder: .*folder .*nowhere"):
        by_sentence_encoder(str(tmp_path / "nowhere"), texts, torch.device("cpu"))


@pytest.mark.parametrize("name", ["llara", "allmrec"])
def test_a_model_that_was_saved_reads_prompts_as_before(name, tasks, vectors, tmp_path, micro_base) -> None:
    task = tasks[name]
    model = load_model(str(micro_base), device="cpu")
    state = torch.random.get_rng_state()
    soft = attach_new(model, task.backbone, vectors[name], seed=7)
    assert torch.equal(state, torch.random.get_rng_state())
    assert sorted(soft.kinds) == sorted(task.backbone.soft_kinds)
    save_soft(soft, tmp_path)
    ids = torch.tensor([task.cases("test")[0].prompt])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        again = load_model(str(micro_base), device="cpu")
        attach_saved(again, task.backbone, tmp_path)
        assert torch.equal(again(input_ids=ids).logits, before)
        other = load_model(str(micro_base), device="cpu")
        attach_new(other, task.backbone, vectors[name], seed=8)
        assert not torch.allclose(other(input_ids=ids).logits, before)
        # Behind an adapter it is the same.
        tuned = add_lora(load_model(str(micro_base), device="cpu"), task.config.model)
        attach_saved(tuned, task.backbone, tmp_path)
        torch.testing.assert_close(tuned(input_ids=ids).logits, before)
        assert soft_embedding(tuned) is not None


def test_what_does_not_fit_is_refused(tasks, vectors, tmp_path, micro_base) -> None:
    model = load_model(str(micro_base), device="cpu")
    llara, allmrec = tasks["llara"].backbone, tasks["allmrec"].backbone
    save_soft(attach_new(model, llara, vectors["llara"]), tmp_path)

    def refused(backbone: Any, match: str) -> None:
        with pytest.raises(ModelError, match=match):
            attach_saved(load_model(str(micro_base), device="cpu"), backbone, tmp_path)

    refused(allmrec, "no vectors of kind user")
    fewer = load_task(tasks["llara"].config).backbone
    fewer.know(["one", "two"])
    refused(fewer, "the catalogue has 2")
    weights = load_file(tmp_path / PROJECTOR)
    save_file({**weights, "item.0.bias": torch.zeros(3)}, tmp_path / PROJECTOR)
    refused(llara, r"item.0.bias \[3\]")
    (tmp_path / PROJECTOR).write_text(json.dumps({}))
    refused(llara, "cannot be read")
    (tmp_path / PROJECTOR).unlink()
    refused(llara, "there is no such file")
    (tmp_path / FILE).unlink()
    refused(llara, FILE)


def test_vectors_of_another_machine_replace_ones_own(vectors) -> None:
    own = vectors["allmrec"]
    other = {name: value + 1 for name, value in own.tensors().items()}
    before = own.tensors()
    own.replace(other)
    assert all(torch.equal(own.tensors()[name], value) for name, value in other.items())
    own.replace(before)
    assert np.array_equal(own.items.numpy(), before["items"].numpy())
