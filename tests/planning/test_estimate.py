"""Times of runs: the arithmetic by hand, measured speeds in place of assumed ones, and what each is based
on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray.config import RunConfig, override, to_dict
from bearray.errors import ConfigError, DataError, MissingFileError
from bearray.planning import CARDS, CPU_CORE, Speed, Work, estimate_run, read_speeds
from bearray.planning.assumed import RANGES
from bearray.planning.costs import training_flops
from bearray.planning.estimate import nearest
from bearray.planning.objectives import factor
from bearray.planning.shapes import SHAPES

RUN = override(RunConfig(), {"model.base": "llama-3.2-1b", "objective.name": "sft", "train.epochs": 3})
WORK = Work(train_windows=1_280, valid_windows=256, test_windows=512)
H100 = CARDS["h100"]


def test_a_run_by_hand() -> None:
    cost = estimate_run(RUN, work=WORK, device=H100)
    shape = SHAPES["llama-3.2-1b"]
    step = 128 * training_flops(shape, WORK, 16) / (0.40 * H100.peak) + 0.05
    user = shape.forward(WORK.prompt_tokens, WORK.prompt_tokens / 2) / (0.25 * H100.peak)
    ratio = WORK.decoding_over_prefill
    assert cost.epoch.seconds == pytest.approx(10 * step)
    assert cost.validation.seconds == pytest.approx(256 * user * ratio["trie"])
    assert cost.test.seconds == pytest.approx(60 + 512 * user * (ratio["trie"] + ratio["full"]))
    assert cost.total.seconds == pytest.approx(
        3 * (cost.epoch.seconds + cost.validation.seconds) + cost.test.seconds
    )
    assert cost.total.basis == "computed" and cost.notes == ()
    assert cost.total.low == pytest.approx(cost.total.seconds * RANGES["computed"].low)
    assert cost.total.high == pytest.approx(cost.total.seconds * RANGES["computed"].high)


def test_workers_share_an_epoch_and_cost_more_hours() -> None:
    alone = estimate_run(RUN, work=WORK, device=H100)
    eight = estimate_run(override(RUN, {"train.num_workers": 8}), work=WORK, device=H100)
    assert alone.epoch.seconds / 8 < eight.epoch.seconds < alone.epoch.seconds
    assert eight.device_hours.seconds > alone.device_hours.seconds
    assert alone.device_hours.seconds == pytest.approx(alone.total.seconds / 3_600)


@pytest.mark.parametrize(
    ("changes", "decodings"),
    [
        ({"evaluation.also_other_normalizer": False}, {"trie": 1}),
        ({"evaluation.also_length_penalty": True}, {"trie": 2, "full": 2}),
        ({"evaluation.exact_test": True, "decoding.normalize": "full"}, {"trie": 1, "full": 2}),
    ],
)
def test_every_decoding_of_the_test_is_counted(changes: dict[str, Any], decodings: dict[str, int]) -> None:
    cost = estimate_run(override(RUN, changes), work=WORK, device=H100)
    user = SHAPES["llama-3.2-1b"].forward(WORK.prompt_tokens, WORK.prompt_tokens / 2) / (0.25 * H100.peak)
    work = sum(WORK.decoding_over_prefill[name] * count for name, count in decodings.items())
    assert cost.test.seconds == pytest.approx(60 + 512 * user * work)


def test_objectives_cost_what_was_measured_and_never_less_than_sft() -> None:
    sft = estimate_run(RUN, work=WORK, device=H100)
    for name in ("bear", "sdpo", "grpo"):
        cost = estimate_run(override(RUN, {"objective.name": name}), work=WORK, device=H100)
        assert cost.epoch.seconds == pytest.approx(sft.epoch.seconds * factor(name).value)
        assert (cost.epoch.high > sft.epoch.high) == (name != "bear") == bool(cost.notes)
    assert factor("bear").value == 1.0 < factor("sdpo").value < factor("grpo").value
    assert factor("of tomorrow").high == 3.0


SPEED = Speed(
    source="there",
    shape=SHAPES["llama-3.2-1b"],
    objective="sft",
    micro_batch=16,
    checkpointing=False,
    workers=1,
    tokens_per_second=100_000.0,
    users_per_second={"trie": 40.0},
)


def test_a_measured_speed_takes_the_place_of_the_assumed_one() -> None:
    cost = estimate_run(RUN, work=WORK, device=H100, speeds=[SPEED])
    tokens = 1_280 * (WORK.prompt_tokens + WORK.answer_tokens)
    assert cost.epoch.seconds == pytest.approx(tokens / 100_000)
    assert cost.epoch.basis == "measured" and cost.validation.seconds == pytest.approx(256 / 40)
    assert cost.validation.basis == "measured"
    assert cost.test.basis == cost.total.basis == "computed"  # the other normaliser was not measured
    assert "there" in cost.notes[0]


def test_a_speed_of_another_model_is_converted_by_work() -> None:
    other = override(RUN, {"model.base": "llama-3.2-3b", "train.gradient_checkpointing": True})
    cost = estimate_run(other, work=WORK, device=H100, speeds=[SPEED])
    flops = [
        training_flops(SHAPES["llama-3.2-3b"], WORK, 16, checkpointing=True),
        training_flops(SHAPES["llama-3.2-1b"], WORK, 16),
    ]
    own = estimate_run(RUN, work=WORK, device=H100, speeds=[SPEED])
    assert cost.epoch.seconds == pytest.approx(own.epoch.seconds * flops[0] / flops[1])
    assert cost.epoch.basis == cost.validation.basis == "measured elsewhere"
    assert "converted by work" in cost.notes[0]


def test_a_speed_of_another_card_is_converted_by_its_rate_and_a_cpus_is_refused() -> None:
    on = replace(SPEED, gpu="NVIDIA A100-SXM4-80GB")
    cost = estimate_run(RUN, work=WORK, device=H100, speeds=[on])
    plain = estimate_run(RUN, work=WORK, device=H100, speeds=[SPEED])
    assert cost.epoch.seconds == pytest.approx(plain.epoch.seconds * 312 / 989)
    assert cost.epoch.basis == "measured elsewhere"
    for wrong in (replace(SPEED, gpu="cpu"), replace(SPEED, tokens_per_second=5.0)):
        with pytest.raises(ConfigError, match="measured on another device"):
            estimate_run(RUN, work=WORK, device=H100, speeds=[wrong])


def test_the_nearest_speed_is_taken() -> None:
    bear = replace(SPEED, objective="bear")
    larger = replace(SPEED, shape=SHAPES["llama-3-8b"], objective="msl")
    assert nearest([larger, bear, SPEED], SPEED.shape, "sft") is SPEED
    assert nearest([larger, bear, SPEED], SPEED.shape, "bear") is bear
    assert nearest([larger, bear, SPEED], SPEED.shape, "dpo") is SPEED
    assert nearest([larger, bear, SPEED], SHAPES["llama-3-8b"], "dpo") is larger
    assert nearest([], SPEED.shape, "sft") is None


def run_folder(folder: Path, speeds: list[float]) -> Path:
    folder.mkdir()
    config = override(RUN, {"train.num_workers": 2, "model.base": "llama-3.2-3b"})
    about = {"run": to_dict(config), "method": "SFT", "dataset": "d", "base_model": "b"}
    (folder / "config.json").write_text(json.dumps(about))
    rows = [{"kind": "step", "step": i, "epoch": 0.1, "tokens_per_s": s} for i, s in enumerate(speeds)]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in [*rows, {"kind": "epoch", "epoch": 1}])
    )
    return folder


def test_a_run_folder_tells_its_speed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [1.0, 2.0, 900.0, 1_100.0, 1_000.0])
    result = {
        "status": "finished",
        "seconds": {"decoding": {"trie": 20.0}},
        "test": {"trie": {"all": {"n": 400, "users": 400}}},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (speed,) = read_speeds(str(folder))
    assert speed.tokens_per_second == 500.0 and speed.workers == 2  # each of two, without the first steps
    assert speed.users_per_second == {"trie": 20.0}
    assert speed.shape == SHAPES["llama-3.2-3b"] and speed.gpu is None


def test_a_benchmark_tells_the_speed_of_each_objective() -> None:
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "efficiency-cpu-office.json"
    speeds = {s.objective: s for s in read_speeds(str(results), "local:tiny")}
    assert speeds["sft"].gpu == "cpu" and "bear" in speeds and "grpo" in speeds
    with results.with_suffix(".csv").open(newline="") as text:
        table = {(row["name"], row["measure"]): float(row["value"]) for row in csv.DictReader(text)}
    assert speeds["sft"].tokens_per_second == pytest.approx(table["sft", "tokens_per_second"], rel=0.01)
    assert speeds["sft"].users_per_second["trie"] == pytest.approx(
        table["beam", "users_per_second"], rel=0.01
    )
    run = override(RUN, {"model.base": "local:tiny", "objective.name": "dpo"})
    cost = estimate_run(run, work=WORK, device=CPU_CORE, speeds=list(speeds.values()))
    assert cost.total.basis == "measured"


def test_what_tells_no_speed_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="neither a run folder"):
        read_speeds(str(tmp_path))
    short = run_folder(tmp_path / "short", [5.0, 6.0])
    with pytest.raises(ConfigError, match="no more than 2 steps"):
        read_speeds(str(short))
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(DataError, match=r"x\.json is not valid JSON"):
        read_speeds(str(tmp_path / "x.json"))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="settings"):
        read_speeds(str(tmp_path / "x.json"))
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "efficiency-cpu-office.json"
    content = json.loads(results.read_text())
    content["training"]["passes"]["sft"] = 7
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"passes\.sft is 7; it must be an object"):
        read_speeds(str(tmp_path / "x.json"), "local:tiny")
    content = json.loads(results.read_text())
    content["settings"]["base_model"] = str(tmp_path / "moved")
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="--measured-model"):
        read_speeds(str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_windows": 0}, "train_windows is 0"),
        ({"prompt_tokens": 400.0}, "longest prompt"),
        ({"answer_tokens": 0.0}, "answer_tokens is 0"),
        ({"shared_tokens": 500.0}, "shared_tokens is 500"),
    ],
)
def test_work_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Work(**changes)
