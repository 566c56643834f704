"""Every decoder with prompts that hold vectors: the same lists as a model that has these vectors as words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.backbones.soft import FIRST
from bearray.baselines.sasrec import SASRec
from bearray.config import DecodingConfig, SASRecConfig, override
from bearray.decoding import list_decoders
from bearray.recommend import DecoderInputs, recommend
from bearray.task import Case, Task, load_task
from bearray.vectors import FrozenVectors, attach_new

DECODERS = [info["name"] for info in list_decoders()]


@dataclass
class Prompts:
    """One backbone's test cases, for a model that reads soft tokens and for one that knows no such thing."""

    task: Task
    soft: nn.Module
    cases: list[Case]
    words: nn.Module
    """The same weights; its table of word embeddings has a row more for each soft token of the prompts."""
    cases_in_words: list[Case]
    blank: nn.Module
    """Reads soft tokens as blank ones."""


@pytest.fixture(scope="module", params=["llara", "allmrec"])
def prompts(request: pytest.FixtureRequest, make_run: Callable[..., Any]) -> Prompts:
    config = make_run({"model.backbone": request.param})
    task = load_task(config)
    cases = task.cases("test")
    model = add_lora(load_model(config.model.base, dtype="float32", device="cpu"), config.model).eval()
    words, blank = copy.deepcopy(model), copy.deepcopy(model)
    chance = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sasrec = SASRec(task.backbone.num_titles, settings := SASRecConfig(hidden=8, layers=1))
    items = 3 * torch.randn(task.backbone.num_titles, 128, generator=chance)
    vectors = FrozenVectors(items, task.backbone.users, sasrec, settings)
    soft = attach_new(model, task.backbone, vectors)
    attach_new(blank, task.backbone, None)

    tokens = sorted({token for case in cases for token in case.prompt if token >= FIRST})
    table = words.get_base_model().get_input_embeddings().weight.detach()
    number = {token: len(table) + place for place, token in enumerate(tokens)}
    with torch.no_grad():
        rows = torch.stack([soft(torch.tensor([token]))[0] for token in tokens])
    words.get_base_model().set_input_embeddings(nn.Embedding.from_pretrained(torch.cat([table, rows])))
    in_words = [replace(c, prompt=[number.get(token, token) for token in c.prompt]) for c in cases]
    return Prompts(task, model, cases, words, in_words, blank)


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_reads_soft_tokens(name: str, prompts: Prompts) -> None:
    config = override(DecodingConfig(), {"method": name, "beam_width": 5})

    def found(model: nn.Module, cases: list[Case]) -> tuple[np.ndarray, np.ndarray]:
        with torch.random.fork_rng():
            return recommend(model, cases, config, DecoderInputs(prompts.task, "cpu"))

    titles, scores = found(prompts.soft, prompts.cases)
    assert (titles[:, 0] >= 0).all() and (titles[:, 1] >= 0).all() == (name != "greedy")
    same, as_scores = found(prompts.words, prompts.cases_in_words)
    assert (titles == same).all()
    np.testing.assert_allclose(scores, as_scores, rtol=1e-4, atol=1e-4)
    _, without = found(prompts.blank, prompts.cases)
    assert not np.allclose(without[:, 0], scores[:, 0], rtol=1e-3)
