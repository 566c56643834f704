"""Training with soft tokens: the same run on any workers and engine, the curriculum, every objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bearray.backbones.llara import hybrid_step
from bearray.backbones.soft import BLANK, FIRST, soft_embedding
from bearray.config import override
from bearray.errors import ConfigError, ResumeError
from bearray.objectives import OBJECTIVES
from bearray.recommend import DecoderInputs, recommend, target_ranks
from bearray.task import load_task
from bearray.trained import load_trained
from bearray.training import start
from bearray.training.loop import Loop
from bearray.training.start import check_init_adapter, new_model
from bearray.vectors import FrozenVectors
from tests.training.test_loop import assert_same_run
from tests.training.workers import Job, Outcome, run_job, run_jobs

CPU = torch.device("cpu")
PARTS: dict[str, Any] = {"rank": 0, "world": 1, "device": CPU}
FROZEN_LM = {"model.lora_r": 0}
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"train.micro_batch_size": 2},
    "zero2": {"train.engine": "deepspeed", "train.zero_stage": 2, "train.micro_batch_size": 2},
    "zero3": {"train.engine": "deepspeed", "train.zero_stage": 3, "train.micro_batch_size": 2},
}
RUNS = {
    "llara": ("llara", {"train.weight_decay": 0.1}),
    "llara-frozen": ("llara", FROZEN_LM),
    "allmrec": ("allmrec", {}),
    "llara-dpo": ("llara", {"objective.name": "dpo", **FROZEN_LM}),
}


def changes_of(name: str, soft_run: Any, make_run: Any) -> dict[str, Any]:
    """A run's settings as changes to the smallest run."""
    backbone, changes = RUNS[name]
    soft = soft_run(backbone, changes).model.soft
    return {
        "model.backbone": backbone,
        "model.soft.sasrec.hidden": soft.sasrec.hidden,
        "model.soft.sasrec.layers": soft.sasrec.layers,
        "model.soft.sasrec.train.epochs": soft.sasrec.train.epochs,
        "model.soft.align_epochs": soft.align_epochs,
        **changes,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soft")


@pytest.fixture(scope="module")
def single(soft_run, folder) -> dict[str, Outcome]:
    """One process, one micro-batch a step, no torch.distributed."""
    return {
        name: run_job(soft_run(*RUNS[name]), Job(name, epochs=2, save=True, validate=True), folder)
        for name in RUNS
    }


@pytest.fixture(scope="module")
def pair(soft_run, make_run, folder, single) -> dict[str, Outcome]:
    """Two workers; some continue what one worker began."""
    of = {name: changes_of(name, soft_run, make_run) for name in RUNS}
    jobs = [
        Job("2-llara-ddp", {**of["llara"], **ENGINES["ddp"]}, epochs=2),
        Job("2-llara-zero2", {**of["llara"], **ENGINES["zero2"]}, epochs=2),
        Job("2-allmrec-zero3", {**of["allmrec"], **ENGINES["zero3"]}, epochs=2, validate=True, save=True),
        Job("2-llara-dpo-zero3", {**of["llara-dpo"], **ENGINES["zero3"]}, epochs=2),
        Job("2-llara-frozen-ddp", {**of["llara-frozen"], **ENGINES["ddp"]}, epochs=2),
        Job("3-llara-zero2", {**of["llara"], **ENGINES["zero2"]}, epochs=2, restore=folder / "llara" / "1"),
        Job(
            "3-allmrec-zero3",
            {**of["allmrec"], **ENGINES["zero3"]},
            epochs=2,
            restore=folder / "2-allmrec-zero3" / "1",
        ),
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("llara", "ddp"),
        ("llara", "zero2"),
        ("allmrec", "zero3"),
        ("llara-dpo", "zero3"),
        ("llara-frozen", "ddp"),
    ],
)
def test_two_workers_train_the_same_model(name, engine, single, pair) -> None:
    assert any(key.startswith("item.") for key in single[name].adapter)
    assert any("lora" in key for key in single[name].adapter) == (name in ("llara", "allmrec"))
    assert_same_run(pair[f"2-{name}-{engine}"], single[name])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", ["3-llara-zero2", "3-allmrec-zero3"])
def test_two_workers_continue_a_run(job, single, pair) -> None:
    assert_same_run(pair[job], single[job.split("-")[1]], first_step=3)


@pytest.mark.slow
def test_validation_on_two_workers(single, pair) -> None:
    for ours, theirs in zip(pair["2-allmrec-zero3"].valid, single["allmrec"].valid, strict=True):
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_decodes_as_the_model_that_wrote_it(name, soft_run, folder, single) -> None:
    """In a process that trains no SASRec, with the adapter merged."""
    config = soft_run(*RUNS[name])
    task = load_task(config)
    loop = Loop(config, task, log=dict, **PARTS)
    loop.restore(folder / name / "2")
    cases = task.cases("test")
    titles, scores = recommend(loop.model.eval(), cases, config.decoding, loop.decoder_inputs)
    fresh = load_task(config)
    model = load_trained(config.model, str(folder / name / "2"), "cpu", backbone=fresh.backbone)
    again, same = recommend(model, fresh.cases("test"), config.decoding, DecoderInputs(fresh, CPU))
    assert (titles == again).all()
    np.testing.assert_allclose(scores, same, rtol=1e-4, atol=1e-4)
    untrained = load_trained(config.model, None, "cpu", backbone=fresh.backbone)
    _, blank = recommend(untrained, fresh.cases("test"), config.decoding, DecoderInputs(fresh, CPU))
    assert not np.allclose(blank, scores, rtol=1e-3)


def test_the_curriculum_blanks_prompts_and_lets_projectors_rest(soft_run, monkeypatch) -> None:
    config = soft_run("llara", {"train.weight_decay": 0.5, "train.warmup_steps": 0})
    task = load_task(config)
    loop = Loop(config, task, log=dict, **PARTS)
    assert loop.curriculum and loop.total_steps == 6
    soft = soft_embedding(loop.model)
    read: list[torch.Tensor] = []
    soft.register_forward_pre_hook(lambda module, args: read.append(args[0].detach().clone()))
    seen = []
    loop.begin_round()
    for step in range(6):
        before = {n: p.detach().clone() for n, p in loop.module.named_parameters() if p.requires_grad}
        read.clear()
        loop.train_step(step, np.arange(8))
        moved = {n: bool((p != before[n]).any()) for n, p in loop.module.named_parameters() if n in before}
        hybrid = hybrid_step(step, 6, config.train.seed)
        seen.append(hybrid)
        tokens = torch.cat([x.flatten() for x in read])
        kinds = set((tokens[tokens >= FIRST] == BLANK).tolist())
        assert kinds == {not hybrid}
        for name, has_moved in moved.items():
            assert has_moved == (hybrid or "projectors" not in name), (step, name)
    assert 0 < sum(seen) < 6 and seen[-1]  # the seed draws some of each

    always = override(config, {"model.soft.curriculum": False})
    assert not Loop(always, task, log=dict, model=loop.model, **PARTS).curriculum


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("llara", name) for name in OBJECTIVES]
    # With users' tokens in the prompts: one of each kind of data that an objective asks for.
    + [("allmrec", name) for name in ("bear", "beam_simulation", "cft", "igd", "sdpo", "sprec", "grpo")],
)
def test_every_objective_takes_a_step_with_soft_tokens(
    backbone, name, soft_run, soft_task, monkeypatch
) -> None:
    changes = {"objective.name": name, "model.soft.curriculum": False, "data.train_windows": 8}
    config = soft_run(backbone, {**changes, "train.epochs": 14 if name == "sprec" else 1, **FROZEN_LM})
    # Flower asks SASRec for scores; the one behind the soft tokens is as good as another.
    monkeypatch.setattr("bearray.recommend.load_or_train_sasrec", soft_task.sasrec)
    rows: list[dict[str, Any]] = []
    loop = Loop(config, load_task(config), log=rows.append, **PARTS)
    before = {n: p.detach().clone() for n, p in soft_embedding(loop.model).trained().items()}
    loop.begin_round()
    loop.train_step(0, np.arange(8))
    assert np.isfinite(rows[0]["loss"])
    after = soft_embedding(loop.model).trained()
    # The reference of best-of-N and GRPO is where the model is, and their first slope may be 0.
    assert all(bool(p.isfinite().all()) for p in after.values())
    assert name in ("grpo", "best_of_n") or any(not torch.equal(after[n], before[n]) for n in before)


@pytest.fixture(scope="module")
def soft_task(soft_run) -> Any:
    """Where SASRec of the small runs comes from."""
    from types import SimpleNamespace

    from bearray.baselines import load_or_train_sasrec

    settings = soft_run("llara").model.soft.sasrec
    return SimpleNamespace(
        sasrec=lambda dataset, titles: load_or_train_sasrec(dataset, titles, settings, progress=False)
    )


def test_a_run_starts_from_another_ones_projectors(soft_run, folder, single, monkeypatch) -> None:
    place = str(folder / "llara" / "2")
    config = soft_run("llara", {"train.init_adapter": place})
    check_init_adapter(config)
    monkeypatch.setattr(start, "make_vectors", lambda *a, **o: pytest.fail("SASRec was asked"))
    loop = Loop(config, load_task(config), log=dict, **PARTS)
    assert not loop.curriculum  # it is behind it
    weights = soft_embedding(loop.model).trained()
    saved = single["llara"].adapter
    assert all(torch.equal(p.detach(), saved[name]) for name, p in weights.items())
    assert all(p.requires_grad for p in weights.values())

    for backbone, changes, match in (
        ("llara", FROZEN_LM, "there is an adapter, but model.lora_r is 0"),
        ("bigrec", {}, "a projector of soft tokens, so it is no run of backbone bigrec"),
    ):
        with pytest.raises(ConfigError, match=match):
            check_init_adapter(soft_run(backbone, {"train.init_adapter": place, **changes}))
    frozen = str(folder / "llara-frozen" / "2")
    with pytest.raises(ConfigError, match=r"there is no adapter, but model\.lora_r is 2"):
        check_init_adapter(soft_run("llara", {"train.init_adapter": frozen}))
    check_init_adapter(soft_run("llara", {"train.init_adapter": frozen, **FROZEN_LM}))


def test_a_checkpoint_of_another_backbone_is_refused(soft_run, folder, single) -> None:
    config = soft_run("allmrec", {"model.lora_r": 2})
    loop = Loop(config, load_task(config), log=dict, **PARTS)
    with pytest.raises(ResumeError):
        loop.restore(folder / "llara" / "1")


def test_a_language_model_without_adapter_needs_projectors(make_run) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora_r is 0; it must be at least 1"):
        make_run(FROZEN_LM)


def test_the_same_seed_makes_the_same_projectors(soft_run) -> None:
    config = soft_run("llara")
    task = load_task(config)
    one, two, other = (
        soft_embedding(new_model(override(config, {"train.seed": seed}), CPU, task)).trained()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["item.0.weight"], other["item.0.weight"])


LEFT, RIGHT = 1, 2
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes next depends on a property of the last item that is in no title; test items are others."""
    folder = tmp_path_factory.mktemp("planted") / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    letters = np.array(list("bcdfghklmnprstvwz"))
    names = ["".join(rng.choice(letters, 4)) for _ in range(80)]
    titles = {LEFT: "Left", RIGHT: "Right"} | {number: name for number, name in enumerate(names, 3)}
    items = pd.DataFrame({"item_id": list(titles), "title": list(titles.values())})
    items.astype({"item_id": "int32"}).to_parquet(folder / "items.parquet")
    parts = {"train": range(3, 59), "valid": range(59, 61), "test": range(61, 83)}
    time, user = 0, 0
    for split, numbers in parts.items():
        rows = []
        for number in numbers:
            time, user = time + 1, user + 1
            rows.append((user, [number, number, LEFT + number % 2], time))
        frame = pd.DataFrame(rows, columns=["user_id", "item_ids", "timestamp"])
        frame.astype({"user_id": "int32"}).to_parquet(folder / f"sequences_{split}.parquet")
    return folder


@pytest.mark.slow
def test_llara_learns_what_only_vectors_carry_and_bigrec_does_not(planted, make_run, monkeypatch) -> None:
    def vectors(config, backbone, dataset, catalog, model, *, progress=True):
        """A property of each item among noise."""
        table = 0.3 * torch.randn(len(catalog), 8, generator=torch.Generator().manual_seed(0))
        for item, title in catalog.title_of_item.items():
            table[title, 0] = 6.0 * (item % 2) - 3.0
        return FrozenVectors(table, backbone.users)

    monkeypatch.setattr(start, "make_vectors", vectors)
    share = {}
    for backbone in ("bigrec", "llara"):
        config = make_run(
            {
                "data.path": str(planted),
                "data.train_windows": None,
                "model.backbone": backbone,
                "model.lora_r": 8,
                "model.lora_targets": ALL_LINEAR,
                "model.soft.curriculum": False,
                "objective.name": "msl",
                "train.epochs": 110,
                "train.schedule": "constant",
                "train.warmup_steps": 10,
                "train.batch_size": 56,
                "train.micro_batch_size": 56,
                "decoding.beam_width": 2,
            }
        )
        task = load_task(config)
        loop = Loop(config, task, log=dict, **PARTS)
        for _ in range(config.train.epochs):
            loop.run_epoch()
        cases = task.cases("test")
        found, _ = recommend(loop.model.eval(), cases, config.decoding, loop.decoder_inputs)
        share[backbone] = float((target_ranks(cases, found) == 0).mean())
    assert share["llara"] >= 0.9
    assert share["bigrec"] <= 0.75  # 11 of 22 would be chance
