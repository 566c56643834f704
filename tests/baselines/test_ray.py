"""Baselines on a cluster: every one takes two steps with two workers, a killed worker costs no result, and
the command goes from a data set to a report."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import psutil
import pytest
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file, save_file

from bearray import cli
from bearray.baselines import BASELINES, Inputs, Job, LLMParts, SASRec, fit, number_titles
from bearray.baselines.cache import train_here
from bearray.baselines.data import TrainBatch
from bearray.baselines.llm_cf import LLMCF, choose_examples
from bearray.baselines.team import Team
from bearray.config import DataConfig, LanguageModelConfig, LLMCFConfig, SASRecConfig, override
from bearray.data import open_dataset
from bearray.evaluation.llm_parts import LanguageModel, model_content
from bearray.report.collect import collect
from bearray.runs import Storage
from bearray.training.baseline import RayBaselineTrainer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 10
"""Of the training whose worker is killed: at two a second it is in the middle when the first is seen."""
TINY = {"hidden": 8, "layers": 1, "train.epochs": 1}


def small_copy(source: Path, target: Path, windows: int) -> Path:
    """The data set with so few training windows."""
    shutil.copytree(source, target)
    file = target / "sequences_train.parquet"
    pd.read_parquet(file).head(windows).to_parquet(file)
    return target


@pytest.fixture(scope="module")
def small_data(demo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo data with 40 training windows. Read only."""
    return small_copy(demo_dir, tmp_path_factory.mktemp("small") / "demo", 40)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a language model's words are kept: vectors of titles are made by the test that comes first."""
    return tmp_path_factory.mktemp("kept")


def made_up(inputs: Inputs) -> LLMParts:
    """Parts that say nothing of meaning, the same on all workers."""
    generator = torch.Generator().manual_seed(0)
    windows, titles = len(inputs.data.train), inputs.num_titles
    rows, about, liked = choose_examples(inputs.data, 6, 0)
    return LLMParts(
        key="made up",
        title_vectors=torch.randn(titles, 4, generator=generator),
        teacher_titles=torch.randint(titles, (windows, 3), generator=generator),
        teacher_distances=torch.rand(windows, 3, generator=generator),
        example_rows=torch.from_numpy(rows),
        example_titles=torch.from_numpy(about),
        example_labels=torch.from_numpy(liked),
        example_vectors=torch.randn(len(rows), 4, generator=generator),
    )


def two_steps_each(settings: dict[str, Any]) -> None:
    """What each worker does: one baseline after the other, so that Ray's start-up is paid once."""
    torch.set_num_threads(1)
    context = ray.train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size())
    dataset = open_dataset(settings["data"])
    for name, entry in BASELINES.items():
        config = override(entry.config(), {**TINY, "train.batch_size": 5, "train.num_workers": 2})
        inputs = Inputs(dataset, number_titles(dataset.items), config.max_history)
        if entry.llm != "none":
            inputs = replace(inputs, llm=made_up(inputs))
        model = Job(entry.kind, config, inputs).build()
        result = fit(model, inputs.data, config.train, team=team)
        assert len(result.history) == 1 and 0 <= result.valid["ndcg@10"] <= 1
        state = {n: v.contiguous() for n, v in model.state_dict().items()}
        metrics = torch.tensor([v for n, v in result.history[0].items() if "seconds" not in n])
        save_file({**state, "metrics": metrics}, f"{settings['folder']}/{name}-{team.rank}.safetensors")
    same_as_alone(Inputs(dataset, number_titles(dataset.items), 10), team)
    ray.train.report({"done": len(BASELINES)})


def same_as_alone(inputs: Inputs, team: Team) -> None:
    """Without chance, two workers do what one does with the whole batch."""
    config = override(SASRecConfig(), {**TINY, "dropout": 0.0, "train.batch_size": 5})
    with patch.object(
        TrainBatch, "draw_unseen", lambda self, count: torch.zeros((len(self.rows), count), dtype=torch.long)
    ):
        models = [SASRec(inputs.num_titles, config) for _ in range(2)]
        together = fit(models[0], inputs.data, config.train, team=team)
        alone = fit(models[1], inputs.data, config.train)
    for name, value in alone.history[0].items():
        assert "seconds" in name or math.isclose(together.history[0][name], value, rel_tol=1e-5), name
    one, other = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models)
    near = ((one - other).abs() < 1e-5).double().mean()
    assert near > 0.95  # not all: Adam enlarges what rounding did to gradients of 0 (keys)


def test_two_steps_of_each_with_two_workers(demo_dir: Path, local_ray: None, tmp_path: Path) -> None:
    """Both workers end with the same weights and metrics, which are not those that they began with."""
    data = small_copy(demo_dir, tmp_path / "demo", 10)
    result = TorchTrainer(
        two_steps_each,
        train_loop_config={"data": str(data), "folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=ray.train.RunConfig(name="baselines", storage_path=str(tmp_path / "ray")),
    ).fit()
    assert result.error is None
    for name in BASELINES:
        one, other = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(one[n], other[n]) for n in one), name
        assert torch.isfinite(one["metrics"]).all()


def test_a_killed_worker_costs_no_result(demo_dir: Path, local_ray: None, tmp_path: Path) -> None:
    """The training goes on after its last checkpoint, and comes to the same weights, bit for bit, as one in
    this process."""
    data = open_dataset(demo_dir)
    config = override(SASRecConfig(), {**TINY, "train.epochs": EPOCHS, "train.patience": None})
    job = Job(SASRec, config, Inputs(data, number_titles(data.items), config.max_history))
    folder = Storage(str(tmp_path / "run"))
    killed: list[int] = []

    def kill_a_worker() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            snapshots = list(Path(folder.root).glob("training/*/checkpoint_manager_snapshot.json"))
            if snapshots and snapshots[0].stat().st_size:
                break
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                killed.append(len(folder.read_lines("metrics.jsonl")))
                os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    model, result = RayBaselineTrainer(folder, progress=False)(job, tmp_path)
    thread.join()
    assert killed and killed[0] < EPOCHS
    here, expected = train_here("cpu", progress=False)(job, tmp_path / "here")
    timeless = [
        [{n: v for n, v in r.items() if "seconds" not in n} for r in h.history] for h in (result, expected)
    ]
    assert timeless[0] == timeless[1] and result.best_epoch == expected.best_epoch
    assert all(torch.equal(v, here.state_dict()[n]) for n, v in model.state_dict().items())
    rows = folder.read_lines("metrics.jsonl")
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert not folder.exists("training")


def test_the_command_goes_from_a_language_model_to_a_report(
    small_data: Path,
    kept: Path,
    micro_base: Path,
    local_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BEARRAY_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "results" / "dllm2rec"
    arguments = ["baseline", "dllm2rec", "--data-dir", str(small_data), "--out", str(out), "--actors", "1"]
    helped = ["--base-model", str(micro_base), "--beams", "1", "--shard-size", "5", "--teacher-titles", "4"]
    helped += ["--kept-in", str(kept)]
    small = ["--hidden", "8", "--layers", "1", "--train.epochs", "2", "--test-windows", "20"]
    assert cli.run([*arguments, *helped, *small]) == 0
    printed, err = capsys.readouterr()
    assert "all (20 windows)" in printed and "NDCG@10" in printed and str(out) in printed
    assert "the teacher recommends for training windows, shard 8 of 8" in err
    assert "epoch 1 of at most 2" in err and "epoch 2 of at most 2" in err
    (run,) = collect(tmp_path / "results").runs
    assert (run.method, run.status, len(run.epochs)) == ("dllm2rec", "finished", 2)
    assert cli.run([*arguments, *helped, *small]) == 0
    again = capsys.readouterr().err
    assert "epoch 1" not in again and "shard" not in again  # from the caches
    assert cli.run([*arguments, *helped, *small, "--distill", "0.4"]) == 2
    assert "baseline.distill: 0.8 -> 0.4" in capsys.readouterr().err
    sasrec = ["baseline", "sasrec", "--data-dir", str(small_data), "--out", str(tmp_path / "other")]
    assert cli.run([*sasrec, "--train.num-workers", "9"]) == 2
    assert "train.num_workers is 9, but the cluster has 2 CPUs" in capsys.readouterr().err


def never() -> None:
    raise AssertionError("asked for a cluster although everything is there")


def test_chains_of_thought_are_written_once_and_continued(
    small_data: Path, kept: Path, micro_base: Path, local_ray: None, tmp_path: Path
) -> None:
    """What is there is not written again, a lost shard alone is made anew, another model is another one."""
    data = DataConfig(path=str(small_data))
    dataset = open_dataset(data.path)
    config = LLMCFConfig(chains=9, chain_tokens=5)
    inputs = Inputs(dataset, number_titles(dataset.items), config.max_history)
    settings = LanguageModelConfig(base_model=str(micro_base), actors=1, shard_size=5, kept_in=str(kept))
    told: list[tuple[str, int, int]] = []

    def on_part(*what: Any) -> None:
        told.append(what)

    first, place = LanguageModel(settings, inputs, data).parts("chains", config, lambda: None, on_part)
    assert ("chains", 2, 2) in told
    rows, titles, liked = choose_examples(inputs.data, 9, config.train.seed)
    assert first.example_rows is not None and first.example_rows.tolist() == rows.tolist()
    assert first.example_titles is not None and first.example_titles.tolist() == titles.tolist()
    assert first.example_labels is not None and first.example_labels.tolist() == liked.tolist()
    assert first.title_vectors.shape == (inputs.num_titles, 32)
    model = LLMCF(inputs.data, first, config)
    assert torch.isfinite(model(inputs.data.test.histories[:4])).all()
    (chains,) = kept.glob("chains-*")
    texts = pd.concat(pd.read_parquet(f) for f in sorted(chains.glob("*.parquet")))["text"]
    assert len(texts) == 9 and texts.str.len().max() > 0

    told.clear()
    again, same = LanguageModel(settings, inputs, data).parts("chains", config, never, on_part)
    assert not told and same == place and again.key == first.key
    lost = chains / "part-00001.parquet"
    before = {f.name: f.stat().st_mtime_ns for f in chains.glob("*.parquet")}
    lost.unlink()
    third, _ = LanguageModel(settings, inputs, data).parts("chains", config, lambda: None, on_part)
    assert told == [("chains", 2, 2)]
    assert third.example_vectors is not None and first.example_vectors is not None
    assert torch.equal(third.example_vectors, first.example_vectors)
    kept = {f.name: f.stat().st_mtime_ns for f in chains.glob("*.parquet")}
    assert {n for n in kept if kept[n] != before[n]} == {lost.name}

    other = shutil.copytree(micro_base, tmp_path / "elsewhere" / micro_base.name)
    assert model_content(str(other)) == model_content(str(micro_base))
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert model_content(str(other)) != model_content(str(micro_base))
