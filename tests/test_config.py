"""Settings: every bad value is an error that names the field, and what is written reads back the same."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.config import (
    DataConfig,
    DecodingConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    SASRecConfig,
    TrainConfig,
    config_hash,
    differences,
    from_dict,
    leaves,
    override,
    to_dict,
)
from bearray.errors import ConfigError

BAD = [
    ("data.train_windows", 0),
    ("data.valid_windows", -1),
    ("data.test_windows", 0),
    ("data.domain_words", ["books", "read"]),
    ("data.domain_words", ["books", "", "book"]),
    ("model.base", ""),
    ("model.lora_r", 0),
    ("model.lora_alpha", 0.0),
    ("model.lora_alpha", float("nan")),
    ("model.lora_dropout", 1.0),
    ("model.lora_dropout", -0.1),
    ("model.lora_targets", []),
    ("model.max_prompt_tokens", 31),
    ("model.dtype", "float16"),
    ("model.backbone", "llama"),
    ("objective.lam", -0.25),
    ("objective.lam", float("inf")),
    ("objective.lam", float("nan")),
    ("objective.xi", 0.0),
    ("objective.xi", -1.0),
    ("objective.xi", float("nan")),
    ("objective.tau", 0.0),
    ("objective.beam_width", 0),
    ("objective.form", "paper"),
    ("objective.vocabulary", "catalogue"),
    ("train.epochs", 0),
    ("train.batch_size", 0),
    ("train.micro_batch_size", 0),
    ("train.num_workers", 0),
    ("objective.last_weight", 1.1),
    ("objective.last_weight", float("nan")),
    ("objective.power", -0.1),
    ("objective.power", float("inf")),
    ("objective.uninformative_weight", -0.1),
    ("objective.uninformative_weight", float("nan")),
    ("train.num_workers", 200),  # more than windows in a batch
    ("train.validate_every", 0),
    ("train.lr", 0.0),
    ("train.lr", float("nan")),
    ("train.weight_decay", -0.1),
    ("train.warmup_steps", -1),
    ("train.max_grad_norm", -1.0),
    ("train.max_failures", -1),
    ("train.zero_stage", 4),
    ("train.zero_stage", -1),
    ("train.schedule", "cosine"),
    ("train.precision", "fp16"),
    ("train.engine", "fsdp"),
    ("train.cpus_per_worker", 0.0),
    ("decoding.beam_width", 0),
    ("decoding.batch_size", 0),
    ("decoding.normalize", "none"),
    ("decoding.length_penalty", float("inf")),
    ("decoding.length_penalty", float("nan")),
    ("decoding.length_penalty", -1e18),
    ("decoding.method", "sampling"),
    ("decoding.exact_node_budget", 0),
    ("decoding.d3_alpha", 1.1),
    ("decoding.d3_alpha", float("nan")),
    ("decoding.d3_scores", "sasrec2"),
    ("decoding.diverse_groups", 0),
    ("decoding.diverse_penalty", -0.1),
    ("decoding.grounding_beams", 0),
    ("decoding.grounding_gamma", float("inf")),
    ("evaluation.actors", 0),
    ("evaluation.cpus_per_actor", 0.0),
    ("evaluation.shard_size", 0),
    ("evaluation.ks", []),
    ("evaluation.ks", [0, 5]),
]
WRONG_TYPES = [
    ("train.epochs", 2.5),
    ("train.epochs", "2"),
    ("train.epochs", True),
    ("train.lr", "1e-4"),
    ("train.lr", True),
    ("train.lr", None),
    ("data.unescape", 1),
    ("data.unescape", "yes"),
    ("data.path", 3),
    ("data.train_windows", "all"),
    ("model.lora_targets", "q_proj"),
    ("model.lora_targets", [1]),
    ("evaluation.ks", 10),
    ("evaluation.ks", ["10"]),
    ("objective", 3),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name.rpartition(".")[2]):
        override(RunConfig(), {name: value})


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name.rpartition(".")[2]):
        override(RunConfig(), {name: value})


def test_messages_say_what_was_given_and_what_would_do():
    with pytest.raises(ConfigError, match=r"objective\.lam is -0\.25; it must be at least 0"):
        ObjectiveConfig(lam=-0.25)
    with pytest.raises(ConfigError, match=r"objective\.xi is 0; it must be a number above 0"):
        ObjectiveConfig(xi=0)
    with pytest.raises(ConfigError, match=r"decoding\.beam_width is 0; it must be at least 1"):
        DecodingConfig(beam_width=0)
    with pytest.raises(
        ConfigError, match=r"train\.engine is 'fsdp'; it must be one of 'auto', 'deepspeed', 'ddp'"
    ):
        from_dict(RunConfig, {"train": {"engine": "fsdp"}})


def test_decoding_settings_that_do_not_fit_the_method_are_refused():
    with pytest.raises(
        ConfigError, match=r"diverse_groups is 3; it must be a divisor of decoding\.beam_width"
    ):
        DecodingConfig(method="diverse", diverse_groups=3)
    for method in ("exact", "diverse", "greedy"):
        with pytest.raises(ConfigError, match=rf"length_penalty is 1\.0; it must be 0 for .*method={method}"):
            DecodingConfig(method=method, length_penalty=1.0)
    assert DecodingConfig(diverse_groups=3).method == "beam"  # another method's settings do not matter


def test_settings_from_before_there_were_decoders_are_read_as_beam_search():
    old = {"beam_width": 5, "normalize": "full", "length_penalty": 0.0, "batch_size": 32}
    expected = DecodingConfig(beam_width=5, normalize="full", batch_size=32)
    assert from_dict(RunConfig, {"decoding": old}).decoding == expected


def test_a_config_error_is_a_value_error_and_survives_pickling():
    with pytest.raises(ValueError) as caught:
        TrainConfig(epochs=0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"trian": {}}, r"unknown setting 'trian'; known here: data, decoding, evaluation, model"),
        (
            {"train": {"learning_rate": 1.0}},
            r"unknown setting 'train\.learning_rate'; known here: accelerator, batch_size",
        ),
        ([1], "mapping"),
        ({"train": [1]}, r"train is \[1\]; it must be a mapping"),
    ],
)
def test_unknown_fields_are_errors(tree, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, tree)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("objective.lambda", "unknown setting 'objective.lambda'; known here: adaptive"),
        ("objektive.lam", "'objektive' is not a group"),
        ("train.lr.peak", "'lr' is not a group"),
        ("lam", "unknown setting 'lam'; known here: data, decoding"),
    ],
)
def test_override_refuses_names_that_are_no_fields(name, message):
    with pytest.raises(ConfigError, match=message):
        override(RunConfig(), {name: 1})


def test_override_returns_a_changed_copy_with_the_right_types():
    run = RunConfig()
    new = override(run, {"objective.lam": 2, "evaluation.ks": [3], "data.train_windows": None})
    assert (new.objective.lam, new.evaluation.ks, new.data.train_windows) == (2.0, (3,), None)
    assert type(new.objective.lam) is float
    assert run == RunConfig()
    assert differences(to_dict(run), to_dict(new)) == [
        "data.train_windows: 10000 -> None",
        "evaluation.ks: [1, 5, 10] -> [3]",
        "objective.lam: 0.25 -> 2.0",
    ]


def test_override_may_replace_a_whole_group():
    assert override(RunConfig(), {"objective": {"name": "sft"}}).objective == ObjectiveConfig(name="sft")


@given(
    lam=st.floats(0, 10),
    xi=st.floats(1e-6, 10),
    epochs=st.integers(1, 99),
    windows=st.none() | st.integers(1, 10**6),
    words=st.none() | st.just(("films", "seen", "film")),
    targets=st.lists(st.sampled_from(["q_proj", "v_proj", "o_proj"]), min_size=1, unique=True),
)
def test_round_trip_through_json(lam, xi, epochs, windows, words, targets):
    run = RunConfig(
        data=DataConfig(path="somewhere", train_windows=windows, domain_words=words),
        model=ModelConfig(lora_targets=tuple(targets)),
        objective=ObjectiveConfig(lam=lam, xi=xi),
        train=TrainConfig(epochs=epochs),
        evaluation=EvaluationConfig(ks=(1, 3)),
    )
    read = from_dict(RunConfig, json.loads(json.dumps(to_dict(run))))
    assert read == run
    assert config_hash(read) == config_hash(run)


def test_settings_are_frozen_and_by_name_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().train.lr = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainConfig(3)  # type: ignore[misc]


def test_hash_tells_settings_apart_and_not_their_order():
    run = RunConfig()
    assert config_hash(run) != config_hash(override(run, {"train.seed": 43}))
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert len(config_hash(run)) == 10


def test_every_field_says_what_it_is():
    """The command line's help is made from these docstrings."""
    import ast
    import inspect

    import bearray.config

    for node in ast.parse(inspect.getsource(bearray.config)).body:
        if not isinstance(node, ast.ClassDef) or node.name == "RunConfig":
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{node.name}.{field.target.id} has no docstring"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", 0),
        ("hidden", 0),
        ("heads", 0),
        ("heads", 3),
        ("dropout", 1.0),
        ("max_history", 0),
        ("train.epochs", 0),
        ("train.patience", 0),
        ("train.batch_size", 0),
        ("train.lr", 0.0),
        ("train.seed", -1),
    ],
)
def test_a_baseline_value_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        override(SASRecConfig(), {name: value})


def test_leaves_are_the_settings_by_their_full_names() -> None:
    tree = {"a": {"b": 1, "c": {"d": None}}, "e": (), "f": {}}
    assert list(leaves(tree).items()) == [("a.b", 1), ("a.c.d", None), ("e", ())]
    config = RunConfig()
    assert len(leaves(to_dict(config))) > 50
    for name, value in leaves(to_dict(config)).items():
        assert override(config, {name: value}) == config
