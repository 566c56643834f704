"""Names with settings: what they mean, and what a mistake in them says."""

from __future__ import annotations

import pytest

from bearray.config import DecodingConfig, RunConfig, override
from bearray.decoding import list_decoders
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.variants import decoder_variants, objective_variants
from bearray.errors import ConfigError
from bearray.objectives import OBJECTIVES

BASE = override(RunConfig(), {"objective.beam_width": 5})


def test_settings_of_a_variant_are_read_as_what_they_are() -> None:
    texts = ["sft", "bear:form=hinge,lam=2,xi=0.5", "sdpo:negative_kind=near, negatives=2,beta=none"]
    sft, bear, sdpo = (o.config for o in objective_variants(texts, BASE).values())
    assert (sft.name, sft.beam_width) == ("sft", 5)
    assert (bear.name, bear.form, bear.lam, bear.xi, bear.beam_width) == ("bear", "hinge", 2.0, 0.5, 5)
    assert (sdpo.negative_kind, sdpo.negatives, sdpo.beta) == ("near", 2, None)
    (flag,) = objective_variants(["sdpo_bear:mask_common_prefix=True"], BASE).values()
    assert flag.config.mask_common_prefix is True


def test_an_objective_may_have_a_lora_dropout_of_its_own() -> None:
    found = objective_variants(["sft", "sft:lora_dropout=0", "bear:lora_dropout=0.25,form=hinge"], BASE)
    assert [o.lora_dropout for o in found.values()] == [BASE.model.lora_dropout, 0.0, 0.25]
    assert found["bear:lora_dropout=0.25,form=hinge"].config.form == "hinge"
    bare = override(BASE, {"model.backbone": "llara", "model.lora_r": 0})
    with pytest.raises(ConfigError, match=r"'sft:lora_dropout=0' sets lora_dropout, but model\.lora_r is 0"):
        objective_variants(["sft:lora_dropout=0"], bare)


def test_all_is_every_registered_objective_and_none_is_none() -> None:
    found = objective_variants(["all"], BASE)
    assert list(found) == list(OBJECTIVES) and all(o.config.name == label for label, o in found.items())
    assert objective_variants(["none"], BASE) == {} == decoder_variants(["none"], DecodingConfig())


def test_all_decoders_have_beam_search_twice_and_its_peer() -> None:
    found = decoder_variants(["all"], DecodingConfig(beam_width=20))
    assert {d.config.method for d in found.values()} == {info["name"] for info in list_decoders()}
    assert found["beam"].config.normalize == "trie" and not found["beam"].peer
    assert found["beam:normalize=full"].config.normalize == "full"
    assert found["generate"].peer and found["generate"].config == found["beam"].config
    assert all(d.config.beam_width == 20 for d in found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bert", "there is no 'bert'; known: .*bear"),
        ("bear:form", "'form' must be FIELD=VALUE"),
        ("bear:", "must be FIELD=VALUE"),
        ("bear:form=", "must be FIELD=VALUE"),
        ("bear:from=hinge", "has no setting 'from'; known: .*form.*lora_dropout"),
        ("bear:lora_dropout=1", r"model\.lora_dropout is 1\.0; it must be in \[0, 1\)"),
        ("bear:lora_dropout=some", "lora_dropout is 'some'"),
        ("bear:form=hinged", "form is 'hinged'; it must be one of"),
        ("bear:xi=0", r"objective.xi is 0\.0"),
        ("bear:xi=high", "xi is 'high'"),
        ("bear:name=sft", "has no setting 'name'"),
        ("bear:xi=1,xi=2", "xi is given twice"),
    ],
)
def test_a_mistake_in_an_objective_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        objective_variants(["sft", text], BASE)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beams", "there is no 'beams'; known: .*generate"),
        ("beam:normalise=full", "has no setting 'normalise'"),
        ("diverse:diverse_groups=3", "divisor of decoding.beam_width"),
        ("generate:exclude_history=true", "generate leaves nothing out"),
    ],
)
def test_a_mistake_in_a_decoder_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder_variants([text], DecodingConfig())


def test_the_same_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="objectives: sft given more than once"):
        objective_variants(["sft", "bear", "sft"], BASE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"objectives": ()}, "objectives is"),
        ({"decoders": ("all", "beam")}, "decoders is"),
        ({"objectives": ("none",), "decoders": ("none",)}, "nothing to time"),
    ],
)
def test_settings_that_cannot_work(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EfficiencyConfig(**changes)


def test_engines_and_workers_that_cannot_be_had() -> None:
    with pytest.raises(ConfigError, match=r"train\.engine is 'deepspeed'"):
        EfficiencyConfig(run=override(RunConfig(), {"train.engine": "deepspeed"}))
    with pytest.raises(ConfigError, match="with --local it must be 1"):
        EfficiencyConfig(local=True, run=override(RunConfig(), {"train.num_workers": 2}))


def test_rounds_and_places_are_not_among_what_results_depend_on() -> None:
    one = EfficiencyConfig(data_dir="a", storage="b", rounds=3).settings()
    other = EfficiencyConfig(data_dir="c", storage="d", rounds=9).settings()
    assert one == other != EfficiencyConfig(steps=5).settings()
