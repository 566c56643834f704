"""Damaged checkpoints, or made by a stranger: a ResumeError that names the file, never a later surprise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bearray.errors import ResumeError
from tests.fuzz.models import restore_micro_checkpoint, save_micro_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_micro_checkpoint(tmp_path / "checkpoint")
    restore_micro_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


STATES = [
    "[" * 50_000, "[]", '{"epoch": {}, "objective": {}}', '{"epoch": -1, "objective": {}}', '{"epoch": 1}',
    '{"epoch": 1, "objective": "x"}', '{"epoch": 1, "objective": {"tau": NaN}}',
    '{"epoch": 1, "objective": {}}',
]  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_is_none(checkpoint: Path, state: str) -> None:
    (checkpoint / "state.json").write_text(state)
    with pytest.raises(ResumeError, match=r"state\.json|nested too deeply"):
        restore_micro_checkpoint(checkpoint)


@pytest.mark.parametrize("wrong", ["another shape", "another name", "another type"])
def test_moments_of_another_adapter(checkpoint: Path, wrong: str) -> None:
    tensors = load_file(checkpoint / "optimizer.safetensors")
    name = next(n for n in tensors if n.startswith("exp_avg."))
    if wrong == "another shape":
        tensors[name] = torch.zeros(3)
    elif wrong == "another name":
        tensors["x"] = tensors.pop(name)
    else:
        tensors[name] = tensors[name].to(torch.int32)
    save_file(tensors, checkpoint / "optimizer.safetensors")
    with pytest.raises(ResumeError, match=r"optimizer\.safetensors"):
        restore_micro_checkpoint(checkpoint)


ANSWERS: list[dict[str, torch.Tensor]] = [
    {"rows": torch.tensor([2, 1, 0])},
    {"rows": torch.tensor([-1, 0, 1])},
    {"rows": torch.zeros(3)},
    {"titles": torch.zeros(2, 2, dtype=torch.int64)},
    {"scores": torch.zeros(3, 5)},
]


@pytest.mark.parametrize("change", ANSWERS)
def test_answers_of_other_windows(checkpoint: Path, change: dict[str, torch.Tensor]) -> None:
    file = checkpoint / "answers.safetensors"
    save_file(load_file(file) | change, file)
    with pytest.raises(ResumeError, match=r"answers\.safetensors"):
        restore_micro_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["state.json", "optimizer.safetensors", "answers.safetensors"])
def test_pipes_are_not_waited_for(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(ResumeError, match=name.replace(".", r"\.")):
        restore_micro_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("target_modules", "(a+)+$"), ("target_modules", [5]), ("r", 10**9), ("r", "x"), ("lora_alpha", None),
     ("rank_pattern", "x"), ("init_lora_weights", 5)],
)  # fmt: skip
def test_adapter_settings_that_a_stranger_chose(checkpoint: Path, entry: str, value: object) -> None:
    """A pattern could run for ever, a rank fill the memory; how weights begin is not for the file to say."""
    from bearray.backbones.lora import load_adapter
    from bearray.errors import ModelError
    from tests.fuzz.models import micro_model

    file = checkpoint / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {entry: value}))
    if entry == "init_lora_weights":
        load_adapter(micro_model(), file.parent)
        return
    with pytest.raises(ModelError, match="adapter"):
        load_adapter(micro_model(), file.parent)
