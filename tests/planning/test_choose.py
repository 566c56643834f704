"""What fits, what is chosen, what is advised, and what the command says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bearray import cli
from bearray.config import RunConfig, override
from bearray.errors import ConfigError
from bearray.planning import CARDS, Work, estimate_run
from bearray.planning.cards import card_called, described
from bearray.planning.choose import micro_batches
from bearray.planning.lengths import work_of
from bearray.planning.plan import Plan, Request, make_plan
from bearray.planning.sweep import sweep_cost
from bearray.planning.text import flags, helps
from bearray.task import load_task

WORK = Work()


def plan(base: str, gpu: str, methods: tuple[str, ...] = ("sft",), **changes: Any) -> Plan:
    run = override(RunConfig(), {"model.base": base})
    return make_plan(Request(run=run, methods=methods, work=WORK, device=CARDS[gpu], **changes))


def test_the_fastest_of_those_that_fit_is_chosen() -> None:
    found = plan("llama-3.2-3b", "l40s")
    fitting = [o for o in found.options if o.fits]
    assert found.chosen is fitting[0] and len(fitting) < len(found.options)
    assert found.chosen.step_seconds == min(o.step_seconds for o in fitting)
    assert not found.chosen.checkpointing and found.chosen.zero_stage == 2
    larger = [o for o in found.options if o.micro_batch > found.chosen.micro_batch and not o.checkpointing]
    assert larger and not any(o.fits for o in larger)


def test_a_small_card_needs_checkpointing() -> None:
    found = plan("llama-3-8b", "rtx-4090")
    assert found.chosen is not None and found.chosen.checkpointing
    assert "--train.gradient-checkpointing" in flags(found)
    (line,) = helps(found)
    assert "do not fit" in line and "--train.micro-batch-size" in line


def test_what_fits_nowhere_says_what_would_do() -> None:
    found = plan("llama-3-8b", "t4", gpus=4)
    assert found.chosen is None and found.sweep is None
    lines = helps(found)
    assert "needs a GPU of" in lines[0] and "base model" in lines[0]
    assert "a GPU of at least" in lines[1]
    size = float(lines[1].split("at least ")[1].split(" GB")[0])
    run = override(RunConfig(), {"model.base": "llama-3-8b", "model.dtype": "float32"})
    larger = described(None, size + 1, 8.1)
    again = make_plan(Request(run=run, methods=("sft",), work=WORK, device=larger, gpus=4))
    assert again.chosen is not None


def test_stage_3_does_not_help_a_model_that_cannot_be_loaded() -> None:
    """Each worker holds all weights before they are shared out."""
    found = plan("llama-3-8b", "t4", gpus=8, workers=8, zero_stage=3)
    assert found.chosen is None
    option = found.options[0]
    assert option.memory.weights < option.room < option.starting


def test_the_most_demanding_method_decides() -> None:
    sft, both = plan("llama-3.2-3b", "a100-40gb"), plan("llama-3.2-3b", "a100-40gb", ("sft", "grpo"))
    assert sft.chosen is not None and both.chosen is not None
    assert both.chosen.micro_batch < sft.chosen.micro_batch


def test_settings_that_are_given_are_kept() -> None:
    found = plan("llama-3.2-1b", "h100", workers=4, gpus=8, zero_stage=1, micro_batch=2, checkpointing=True)
    assert found.chosen is not None and len(found.options) == 1
    expected = "--train.num-workers 4 --train.zero-stage 1 --train.micro-batch-size 2"
    assert flags(found) == f"{expected} --train.gradient-checkpointing"


def test_micro_batches_fill_a_workers_share() -> None:
    assert micro_batches(128, 1) == [128, 64, 32, 16, 8, 4, 2, 1]
    assert micro_batches(100, 4) == [25, 16, 8, 4, 2, 1]
    assert micro_batches(4, 8) == [1]


def test_a_sweep_by_hand() -> None:
    """Two methods beside each other, 5 trials in twos, then another seed; four tests one after the other."""
    runs = [
        override(RunConfig(), {"objective.name": n, "model.base": "llama-3.2-1b"}) for n in ("sft", "bear")
    ]
    device = CARDS["h100"]
    cost = sweep_cost(runs, work=WORK, device=device, devices=2, trials=5, seeds=2)
    one = estimate_run(runs[0], work=WORK, device=device, actors=2)
    assert cost.at_a_time == 2 and [m.runs for m in cost.methods] == [2, 6]
    train = one.training.seconds * (1 + 3 + 1)
    assert cost.wall.seconds == pytest.approx(train + 4 * one.test.seconds)
    assert cost.held_hours.seconds == pytest.approx(2 * cost.wall.seconds / 3_600)
    assert cost.busy_hours.seconds < cost.held_hours.seconds


def test_cards_by_name() -> None:
    assert described("H100", None, None) is CARDS["h100"]
    assert described("NVIDIA RTX 4090", None, None) is CARDS["rtx-4090"]
    assert described("A100", None, None) is CARDS["a100-80gb"]
    assert described(None, 48, 300).memory == 48e9
    assert described("h100", 94, None).peak == CARDS["h100"].peak
    for name, key in (("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA L40S", "l40s"), ("NVIDIA L4", "l4")):
        assert card_called(name) is CARDS[key]
    assert card_called("NVIDIA GB10") is None
    with pytest.raises(ConfigError, match="--gpu mi300x is not known; it must be one of l4"):
        described("mi300x", None, None)
    with pytest.raises(ConfigError, match="--gpu-memory is -1"):
        described(None, -1, 5)
    with pytest.raises(ConfigError, match="give --gpu, or both"):
        described(None, 24, None)


def test_lengths_of_a_data_set(make_run: Any) -> None:
    """By the tokenizer, as the loop will have them; by characters where there is none."""
    config = make_run()
    work, examples = work_of(config), load_task(config).examples()
    assert work.train_windows == len(examples) == 22
    assert work.longest_prompt == max(len(e.prompt) for e in examples)
    assert work.answer_tokens == sum(len(e.answer) for e in examples) / 22
    assert 0 < work.shared_tokens < work.prompt_tokens and work.choices > 1
    guessed = work_of(override(config, {"model.base": "local:tiny"}))
    assert "guessed from characters" in guessed.source and guessed.titles == work.titles
    assert 0 < guessed.shared_tokens < guessed.prompt_tokens <= guessed.longest_prompt


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = cli.run(["plan", *options])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_shows_tables_flags_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--gpu", "h100", "--gpus", "8", "--price", "2.5", "--methods", "sft", "bear")
    assert code == 0
    for words in (
        "What fits",
        "What it costs",
        "chosen",
        "computed",
        "At 2.5 a GPU hour",
        "--train.zero-stage 2",
    ):
        assert words in out, words
    code, out, _ = run(capsys, "--gpu", "t4", "--model", "llama-3-8b")
    assert code == 1 and "Nothing fits" in out and "has no bfloat16" in out


def test_the_command_as_json(capsys: pytest.CaptureFixture[str], make_run: Any) -> None:
    config = make_run()
    options = ("--gpu", "l4", "--data-dir", config.data.path, "--model", config.model.base, "--json")
    code, out, _ = run(capsys, *options, "--train-windows", "20", "--price", "1", "--batch-size", "8")
    content = json.loads(out)
    assert code == 0 and content["work"]["train_windows"] == 20
    assert content["chosen"]["fits"] and content["flags"].startswith("--train.num-workers 1")
    sweep = content["sweep"]
    assert sweep["price"]["seconds"] == sweep["gpu_hours_held"]["seconds"]
    assert sweep["methods"]["bear"]["epoch_seconds"]["basis"] == "computed"


def test_lengths_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("--gpu", "h100", "--json")
    work = json.loads(run(capsys, *base, "--prompt-tokens", "487.4", "--answer-tokens", "27")[1])["work"]
    assert (work["longest_prompt"], work["longest_answer"]) == (606, 64)  # as much longer as by default
    work = json.loads(run(capsys, *base, "--longest-prompt-tokens", "100")[1])["work"]
    assert (work["prompt_tokens"], work["shared_tokens"]) == (100, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "abacus"], "--gpu abacus is not known"),
        (["--gpu", "h100", "--gpus", "0"], "--gpus is 0"),
        (["--gpu", "h100", "--methods", "sgd"], "sgd"),
        (["--gpu", "h100", "--model", "nowhere/at/all"], "does not exist"),
        (["--gpu", "h100", "--num-workers", "2"], "--num-workers is 2, but there are 1 GPUs"),
        (["--gpu", "h100", "--price", "-1"], "--price is -1"),
        (["--gpu", "h100", "--measured", "nowhere"], "neither a run folder"),
        (["--gpu", "h100", "--backbone", "gpt"], "model.backbone"),
        (["--gpu", "h100", "--search-methods", "baer"], "--search-methods has 'baer'; lambda and xi are"),
        (["--gpu", "h100", "--search-methods", "sft"], "of bear, beam_simulation, sdpo_bear only"),
        (["--gpu", "h100", "--search-methods", "sdpo_bear"], "not among --methods (sft, msl, bear)"),
        (["--gpu", "h100", "--methods", "bear", "bear"], "--methods is bear bear; it must list each"),
        (["--gpu", "h100", "--trials", "-1"], "--trials is -1"),
        (["--gpu", "h100", "--data-dir", "nowhere"], "nowhere does not exist"),
        (["--gpu", "h100", "--prompt-tokens", "nan"], "--prompt-tokens is nan; it must be above 0"),
        (["--gpu", "h100", "--longest-answer-tokens", "-3"], "--longest-answer-tokens is -3"),
        (["--gpu", "h100", "--measured-model", "base"], "--measured-model is of what --measured gives"),
    ],
)
def test_mistakes_cost_one_message(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, *options)
    assert code == 2 and message in err


def test_what_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """BEAR unless something else is said, and only where the sweep has it."""

    def trained(*options: str) -> dict[str, int]:
        code, out, _ = run(capsys, "--gpu", "h100", "--trials", "5", "--seeds", "2", "--json", *options)
        assert code == 0
        return {name: method["runs"] for name, method in json.loads(out)["sweep"]["methods"].items()}

    assert trained() == {"sft": 2, "msl": 2, "bear": 6}
    assert trained("--methods", "sft", "msl") == {"sft": 2, "msl": 2}
    both = ("bear", "sdpo_bear")
    assert trained("--methods", "sft", *both, "--search-methods", *both) == {
        "sft": 2,
        **dict.fromkeys(both, 6),
    }
    assert trained("--methods", "bear", "--search-methods") == {"bear": 2}


def test_a_micro_batch_is_at_most_a_workers_share(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("--gpu", "h100", "--gpus", "2", "--num-workers", "2", "--batch-size", "8", "--json")
    chosen = json.loads(run(capsys, *base, "--micro-batch-size", "100000")[1])["chosen"]
    assert chosen["fits"] and chosen["micro_batch"] == 4
