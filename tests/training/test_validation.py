"""Validation in one process, with every decoder that a run can choose."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from bearray.config import DecodingMethod
from bearray.errors import BearrayError
from bearray.recommend import DecoderInputs, recommend
from bearray.training.validation import validate


@pytest.fixture(scope="module")
def model(make_run) -> Any:
    from bearray.backbones.load import load_model
    from bearray.backbones.lora import add_lora

    config = make_run()
    return add_lora(load_model(config.model.base, dtype="float32", device="cpu"), config.model, seed=0)


@pytest.mark.parametrize("method", get_args(DecodingMethod))
def test_metrics_are_those_of_the_recommended_titles(method, model, make_run, micro_task):
    decoding = make_run({"decoding.method": method}).decoding
    inputs, cases = DecoderInputs(micro_task, "cpu"), micro_task.cases("valid", range(12))
    model.train()
    got = validate(model, cases, decoding, inputs, expected=12)
    assert model.training
    assert all(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)
    titles, _ = recommend(model, cases, decoding, inputs)
    places = [
        row.tolist().index(case.target_title) if case.target_title in row else None
        for row, case in zip(titles, cases, strict=True)
    ]
    hits = [place for place in places if place is not None]
    assert got == pytest.approx(
        {
            "valid_n": 12,
            "valid_hr@10": len(hits) / 12,
            "valid_ndcg@10": sum(1 / math.log2(place + 2) for place in hits) / 12,
        }
    )


def test_a_window_that_was_not_decoded_is_an_error(model, make_run, micro_task):
    cases = micro_task.cases("valid", range(3))
    with pytest.raises(BearrayError, match="validation decoded 3 windows of 4"):
        validate(model, cases, make_run().decoding, DecoderInputs(micro_task, "cpu"), expected=4)
