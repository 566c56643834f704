"""What many tests share: a demo data set of a few users, a base model of a few thousand parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.not_run import pytest_runtest_makereport, pytest_terminal_summary  # noqa: F401

# A case that takes long on a busy machine is no failure.
hypothesis.settings.register_profile("bearray", deadline=None)
hypothesis.settings.load_profile("bearray")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

MICRO_RUN: dict[str, Any] = {
    "data.train_windows": 22,
    "data.valid_windows": 29,
    "data.test_windows": 11,
    "model.lora_r": 2,
    "model.lora_dropout": 0.0,
    "model.max_prompt_tokens": 128,
    "objective.name": "bear",
    "objective.beam_width": 3,
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.micro_batch_size": 8,
    "train.lr": 1e-2,
    "train.warmup_steps": 2,
    "train.engine": "ddp",
    "decoding.beam_width": 10,
    "decoding.batch_size": 4,
    "evaluation.shard_size": 4,
    "evaluation.actors": 1,
}
"""Changes to `RunConfig` that make a run take less than a second; 22 windows in batches of 8 leave a last
batch of 6, which two workers and four accumulation steps cannot share evenly."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, the files with Ray begin: together they take longest."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not _starts_ray(config.rootpath / item.nodeid.partition("::")[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, with all files that start a Ray cluster in one process: two clusters would disturb
    each other, because Ray cleans up stopped runs by asking the machine for one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "ray" if _starts_ray(config.rootpath / file) else file

    return Scheduler(config, log) if config.getvalue("dist") == "loadfile" else None


@cache
def _starts_ray(file: Path) -> bool:
    return "pytest.mark.ray" in file.read_text()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors are slower on many threads, and tests of two processes would fight for the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo data set with some 60 items and a few hundred windows."""
    from bearray.data.demo import make_demo

    folder = tmp_path_factory.mktemp("data") / "demo"
    make_demo(folder, seed=0, items=60, users=120)
    return folder


@pytest.fixture(scope="session")
def micro_base(demo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, trained for a few steps: enough that its predictions differ by user."""
    from bearray.backbones.pretrain import BaseSize
    from bearray.backbones.tiny import build_base_model
    from bearray.data import open_dataset

    size = BaseSize(
        name="micro", hidden=32, layers=2, heads=4, kv_heads=2, intermediate=67, vocab_size=600, context=128,
        batch_blocks=4, max_steps=30, lr=1e-2,
    )  # fmt: skip
    return build_base_model(
        open_dataset(demo_dir), size, cache_dir=tmp_path_factory.mktemp("base"), progress=False
    )


@pytest.fixture(scope="session")
def make_run(demo_dir: Path, micro_base: Path) -> Callable[..., Any]:
    """`make_run({"train.epochs": 3})`: the smallest run, with changes."""
    from bearray.config import RunConfig, override

    def make(changes: dict[str, Any] | None = None) -> RunConfig:
        places = {"data.path": str(demo_dir), "model.base": str(micro_base)}
        return override(RunConfig(), {**MICRO_RUN, **places, **(changes or {})})

    return make


@pytest.fixture(scope="session")
def micro_task(make_run: Callable[..., Any]) -> Any:
    """The smallest run's data in tokens."""
    from bearray.task import load_task

    return load_task(make_run())


def start_ray() -> None:
    """A Ray of two CPUs on this machine."""
    import ray

    from bearray.tuning.cluster import connect, start_local

    # A worker waits with its next report until Ray has fetched the last one; the epochs of tests are shorter
    # than the two seconds after which it looks again.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    assert not ray.is_initialized()
    start_local(cpus=2)
    connect()  # what else it sets for a sweep


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """`start_ray` for the length of a module."""
    import ray

    start_ray()
    yield
    ray.shutdown()
