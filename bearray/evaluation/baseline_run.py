"""A baseline from its name to its run folder: trained on the cluster, tested as the LLM recommenders are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bearray.baselines import (
    Baseline,
    Fit,
    Fitted,
    Inputs,
    Job,
    baseline,
    load_or_train,
    number_titles,
)
from bearray.config import DataConfig, LanguageModelConfig
from bearray.data import open_dataset
from bearray.evaluation.baseline import begin_baseline_run, write_baseline_run
from bearray.evaluation.llm_parts import LanguageModel, OnPart
from bearray.runs import Storage
from bearray.training.baseline import RayBaselineTrainer


def train_and_test(
    name: str,
    settings: Any,
    data: DataConfig,
    folder: Storage,
    *,
    llm: LanguageModelConfig | None = None,
    exclude_history: bool = False,
    connect: Callable[[], None],
    progress: bool = True,
) -> tuple[Fitted, dict[str, Any]]:
    """Train a baseline, or find it in the user's cache, test it, and write its run folder.

    Args:
        name: one of `bearray.baselines.BASELINES`.
        settings: its config.
        data: the data set, and which validation and test windows are ranked.
        folder: the run folder.
        llm: the language model that helps, for baselines that need one; others ignore it.
        exclude_history: leave titles of the history out of the lists.
        connect: connects this process to Ray; called when a cluster is needed.
        progress: show progress on stderr.

    Returns:
        The trained model, and {"valid": metrics, "test": metrics} as `bearray.metrics.evaluate`.

    Raises:
        ConfigError: no such baseline, or the training diverged.
        DataError, MissingFileError: the data set is not there or damaged.
        ResourceError: the cluster is too small.
        ResumeError: the folder is of a run with other settings or other data.
        StorageError: the folder or the cache cannot be written.
    """
    entry = baseline(name)
    dataset = open_dataset(data.path, strict=data.strict)
    folder.check_writable()
    titles = number_titles(dataset.items, unescape=data.unescape)
    inputs = Inputs(dataset, titles, settings.max_history)
    told: dict[str, Any] | None = None
    place = None
    if entry.llm != "none":
        model = LanguageModel(llm or LanguageModelConfig(), inputs, data)
        told = model.identity(entry.llm)
    about: dict[str, Any] = {"llm": told, "exclude_history": exclude_history}
    begin_baseline_run(name, dataset, data, settings, folder, **about)
    if entry.llm != "none":
        with _parts_progress(f"{name} on {dataset.name}", progress) as on_part:
            parts, place = model.parts(entry.llm, settings, connect, on_part)
        inputs = replace(inputs, llm=parts)
    on_cluster = RayBaselineTrainer(
        folder, unescape=data.unescape, strict=data.strict, llm_folder=place, progress=progress
    )

    def trainer(job: Job, state: Path) -> tuple[Baseline, Fit]:
        connect()
        return on_cluster(job, state)

    fitted = load_or_train(Job(entry.kind, settings, inputs), progress=progress, trainer=trainer)
    metrics = write_baseline_run(fitted, dataset, data, settings, folder, **about)
    return fitted, metrics


@contextmanager
def _parts_progress(title: str, progress: bool) -> Iterator[OnPart]:
    """Lines on stderr while the language model works, a tenth of the way apart."""
    from bearray.terminal import terminal

    console = terminal(stderr=True, soft_wrap=True)

    def say(what: str, done: int, total: int) -> None:
        if progress and (done in (1, total) or done % max(1, total // 10) == 0):
            console.print(f"{title}: {_WHAT[what]}, shard {done} of {total}")

    yield say


_WHAT = {
    "vectors": "the language model reads titles",
    "lists": "the teacher recommends for training windows",
    "chains": "the language model writes chains of thought",
}
