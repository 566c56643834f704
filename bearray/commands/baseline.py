"""`bearray baseline`: train and test recommenders that know items by number only."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from bearray.config import (
    BERT4RecConfig,
    DLLM2RecConfig,
    DROSConfig,
    LanguageModelConfig,
    LLMCFConfig,
    SASRecConfig,
)

_AS_ALL = """

    It ranks the whole catalogue of titles, with the test windows, metrics and intervals of the LLM
    recommenders; `bearray report` reads the folder. It is trained under Ray Train, on the cluster that is
    there or on this machine; the same command again continues what was interrupted. The trained model is kept
    in the user's cache ($BEARRAY_CACHE/baselines or ~/.cache/bearray/baselines), and the same settings on the
    same data are not trained twice.

    Args:
        data_dir: Folder with items.parquet and sequences_{train,valid,test}.parquet.
        out: Run folder to write: config.json, metrics.jsonl, result.json, predictions/, checkpoints/.
        test_windows: Test windows ranked at most (None: all); the published evaluation caps at 5,000.
        sample_seed: Seed of the sample of test windows.
        unescape: Turn HTML entities in titles into characters (decides which items share a title).
        strict: Items without a title are an error instead of being left out.
        exclude_history: Leave titles of the history out of the lists; LLM recommenders do not.
        config: Sizes and training.
"""


_LLM = """    llm: The language model that helps. What it says is said once, by Ray Data actors, and kept.
"""


_Helper = Annotated[LanguageModelConfig, tyro.conf.arg(name="")]


def _command(name: str, config_type: type[Any], what: str, *, helped: bool = False) -> Callable[..., None]:
    """The command of a baseline: the options that all have, its own settings, and, where a language model
    helps it, those of that."""

    def command(
        *,
        data_dir: str,
        out: Path,
        llm: _Helper = LanguageModelConfig(),  # noqa: B008 - frozen
        test_windows: int | None = 5_000,
        sample_seed: int = 42,
        unescape: bool = True,
        strict: bool = False,
        exclude_history: bool = False,
        config: Any,
    ) -> None:
        from bearray.config import DataConfig
        from bearray.runs import absolute

        data = DataConfig(
            path=absolute(data_dir),
            train_windows=None,
            test_windows=test_windows,
            sample_seed=sample_seed,
            unescape=unescape,
            strict=strict,
        )
        _run(name, config, data, out, exclude_history=exclude_history, llm=llm if helped else None)

    command.__doc__ = (
        f"Train {what} on the whole training split, stop by validation NDCG@10, test it, write a run folder."
        + _AS_ALL
        + (_LLM if helped else "")
    )
    command.__annotations__["config"] = Annotated[config_type, tyro.conf.arg(name="")]
    command.__kwdefaults__ = {**(command.__kwdefaults__ or {}), "config": config_type()}
    if not helped:
        signature = inspect.signature(command)
        rest = [parameter for parameter in signature.parameters.values() if parameter.name != "llm"]
        command.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return command


sasrec = _command("sasrec", SASRecConfig, "SASRec, self-attention over a history,")
bert4rec = _command("bert4rec", BERT4RecConfig, "BERT4Rec, which fills in masked titles,")
dros = _command("dros", DROSConfig, "DROS, SASRec made robust against shifts of popularity,")
dllm2rec = _command("dllm2rec", DLLM2RecConfig, "DLLM2Rec, DROS taught by an LLM's lists,", helped=True)
llm_cf = _command("llm-cf", LLMCFConfig, "LLM-CF, SASRec with an LLM's chains of thought,", helped=True)


def _run(
    name: str,
    config: Any,
    data: Any,
    out: Path,
    *,
    exclude_history: bool,
    llm: LanguageModelConfig | None,
) -> None:
    from bearray.evaluation.baseline_run import train_and_test
    from bearray.runs import Storage
    from bearray.tuning.cluster import connect

    folder = Storage(str(out))
    fitted, metrics = train_and_test(
        name, config, data, folder, llm=llm, exclude_history=exclude_history, connect=connect
    )
    epochs = f"epoch {fitted.best_epoch} of {len(fitted.history)} was best by validation NDCG@10"
    print(f"{name} on {data.path}: {epochs}")
    for split, groups in metrics.items():
        print(_table(split, groups))
    print(f"\nmodel: {fitted.folder}\nrun:   {folder.root}")


def _table(split: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a metric, a column for all, warm and cold targets."""
    heads = [f"{group} ({values['n']} windows)" for group, values in groups.items()]
    lines = [f"\n{f'{split}, 95% interval':<22}" + "".join(f"{head:<28}" for head in heads).rstrip()]
    for name in groups["all"]:
        if "@" in name and name != "ndcg@1":  # NDCG@1 is HR@1
            cells = [_cell(values.get(name)) for values in groups.values()]
            lines.append(f"{name.upper():<22}" + "".join(f"{cell:<28}" for cell in cells).rstrip())
    return "\n".join(lines)


def _cell(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
