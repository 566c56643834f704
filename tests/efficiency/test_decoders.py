"""Decoders over the same windows, and the peer of beam search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bearray.config import DecodingConfig
from bearray.efficiency.core import Clock, count_passes
from bearray.efficiency.decoders import DecodingContenders
from bearray.efficiency.variants import decoder_variants
from tests.adapters import stir

CPU = torch.device("cpu")
BASE = DecodingConfig(beam_width=4)


@pytest.fixture(scope="module")
def contenders(make_run: Any, micro_task: Any) -> DecodingContenders:
    texts = ["beam", "beam:normalize=full", "greedy", "generate", "generate:normalize=full"]
    return DecodingContenders(make_run(), decoder_variants(texts, BASE), micro_task, users=5, device=CPU)


def test_generate_finds_what_beam_search_finds(contenders: DecodingContenders) -> None:
    for label in contenders.labels:
        for work in contenders.begin(label, 0):
            work()
    found = contenders.found
    assert found["beam"].shape == (5, 4) and (found["beam"] >= 0).all()
    for normalize in ("", ":normalize=full"):
        ours, theirs = found[f"beam{normalize}"], found[f"generate{normalize}"]
        assert [set(row) for row in ours.tolist()] == [set(row) for row in theirs.tolist()]
        np.testing.assert_array_equal(ours[:, 0], theirs[:, 0])
    np.testing.assert_array_equal(found["greedy"][:, 1:], -1)


def test_rounds_take_the_next_windows_and_begin_again(contenders: DecodingContenders) -> None:
    rows = [[case.row for case in contenders.cases(n)] for n in range(3)]  # of 11 windows
    assert rows == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [0, 1, 2, 3, 10]]
    assert [contenders.size(n) for n in range(3)] == [5, 5, 5]


def test_passes_of_decoders(contenders: DecodingContenders) -> None:
    counts = count_passes(contenders, Clock(CPU))
    assert all(c["backward"] == [0] and c["forward"][0] >= 1 for c in counts.values())
    assert counts["greedy"]["tokens"] < counts["beam"]["tokens"] < counts["generate"]["tokens"]


def test_a_trained_adapter_is_what_decodes(make_run: Any, micro_task: Any, tmp_path: Any) -> None:
    from bearray.backbones.lora import save_adapter
    from bearray.training.start import new_model

    model = stir(new_model(make_run(), CPU), std=0.5)
    save_adapter(model, tmp_path)
    decoders = decoder_variants(["beam", "grounding"], BASE)
    found = {}
    for name, place in (("base", None), ("trained", str(tmp_path))):
        made = DecodingContenders(
            make_run({"train.init_adapter": place}), decoders, micro_task, users=5, device=CPU
        )
        for label in made.labels:
            made.begin(label, 0)[0]()
        found[name] = made.found
        assert (made.model("beam") is made.model("grounding")) == (place is None)
    assert (found["base"]["beam"] != found["trained"]["beam"]).any()
