"""A job's secrets are in its environment; what a run writes of itself holds none of it. The whole way, with a
sweep as a job on a cluster, is tests/cluster/test_over_ssh.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bearray.config import RunConfig
from bearray.runs import Storage
from bearray.tuning.trial import RunPlan, begin

SECRETS = {
    "HF_TOKEN": "hf_SecretOfTheTest",
    "WANDB_API_KEY": "wandbSecretOfTheTest",
    "AWS_SECRET_ACCESS_KEY": "awsS",
}


def test_a_run_folder_holds_nothing_of_the_environment(
    make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    plan = RunPlan(
        config=make_run(), role="method", method="SFT", dataset="demo", base_model="local:tiny",
        base_model_kind="local stand-in", data_hash="0123",
    )  # fmt: skip
    begin(plan, Storage(str(tmp_path)))
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert '"created"' in text
    assert not any(part in text for pair in SECRETS.items() for part in pair)
