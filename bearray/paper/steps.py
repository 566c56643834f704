"""What has to be done, in its order: each step knows whether it is done, does it, and may be interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bearray.backbones import base_model_kind
from bearray.baselines.registry import baseline
from bearray.config import (
    DataConfig,
    LanguageModelConfig,
    RunConfig,
    SASRecConfig,
    config_hash,
    differences,
    override,
    to_dict,
)
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.results import FILE, FOLDER, forget
from bearray.errors import BearrayError, ResumeError
from bearray.evaluation.baseline_run import train_and_test
from bearray.evaluation.pool import OnShard
from bearray.evaluation.pruning import Analysis, analyse_run, begin_measuring
from bearray.evaluation.redecode import choose_decoding, redecoded
from bearray.evaluation.shards import MANIFEST
from bearray.paper.config import D3, PaperConfig
from bearray.paper.data import data_folder
from bearray.paper.parts import Needs, Part, labels
from bearray.paper.stored import BASELINES, DECODED, SENSITIVITY
from bearray.paper.sweeps import (
    part_base,
    part_run,
    part_storage,
    part_sweep,
    sensitivity_points,
    sensitivity_sweep,
    with_base,
)
from bearray.runs import Storage, absolute
from bearray.trained import CONFIG, RESULT, TrainedRun, open_run
from bearray.tuning.cluster import connect
from bearray.tuning.config import SweepConfig
from bearray.tuning.settings import method_settings
from bearray.tuning.sweep import SWEEP, check_sweep, run_sweep
from bearray.tuning.timing import run_benchmark
from bearray.tuning.trial import finished
from bearray.tuning.watch import say


@dataclass(frozen=True, kw_only=True)
class Decodings:
    """How often an LLM decodes the splits of a part, beside what the runs do that are trained meanwhile."""

    valid: int = 0
    """The validation windows of a run."""
    test: int = 0
    """Its test windows, in all versions of the tables."""
    train: int = 0
    """All training windows of the data set."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Some runs or measurements of one part."""

    title: str
    part: Part
    runs: Callable[[], int]
    """Runs or measurements in it; those of some are known only once others are done."""
    done: Callable[[], int]
    """How many of them are there."""
    do: Callable[[], None]
    """What makes the others; call it again to continue."""
    check: Callable[[], None] = lambda: None
    """Raises ResumeError where what is there was made with other settings."""
    trains: SweepConfig | None = None
    """The sweep that trains its runs, if it has LLMs trained."""
    methods: frozenset[str] = frozenset()
    """Those of the sweep's methods that it trains."""
    decodes: Callable[[], Decodings] | None = None
    """What an LLM still decodes in it."""
    unpriced: str = ""
    """What in it takes time that is not estimated."""


def steps(config: PaperConfig, wanted: Needs) -> Iterator[Step]:
    """All steps, a data set after the other, those on which others build first."""
    for name in config.datasets:
        parts = [part for part in wanted.methods if part.dataset == name]
        for part in parts:
            yield _methods(config, part, wanted.methods[part])
            if part in wanted.d3:
                yield _d3(config, part)
            if part in wanted.pruning:
                yield _pruning(config, part, wanted.pruning[part])
            if part in wanted.timing:
                yield _timing(config, part, wanted.timing[part])
            if part in wanted.sensitivity:
                yield _sensitivity(config, part)
        for baseline_name in config.baselines:
            if baseline_name in wanted.baselines.get(name, ()):
                yield _baseline(config, name, baseline_name)


def tested_runs(config: PaperConfig, part: Part) -> dict[tuple[str, int], Storage]:
    """A part's runs that are chosen and tested, by method and seed."""
    storage = part_storage(config, part)
    found = {}
    for name in storage.names("runs") if storage.exists("runs") else ():
        folder = storage.child("runs", name)
        result = folder.read_json(RESULT) if folder.exists(RESULT) else {}
        if result.get("chosen") and "test" in result:
            about = folder.read_json(CONFIG)
            found[about["method"].lower(), int(about["run"]["train"]["seed"])] = folder
    return found


def _methods(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    sweep = part_sweep(config, part)

    def do() -> None:
        run_sweep(with_base(config, part, sweep), only=methods)

    def done() -> int:
        return sum(
            method in methods and seed in sweep.all_seeds for method, seed in tested_runs(config, part)
        )

    def check() -> None:
        if Storage(sweep.storage).exists(SWEEP):
            check_sweep(with_base(config, part, sweep))

    return Step(
        title=f"train and test {labels(methods)}",
        part=part,
        runs=lambda: len(methods) * len(sweep.all_seeds),
        done=done,
        do=do,
        check=check,
        trains=sweep,
        methods=methods,
    )


def _trained(config: PaperConfig, part: Part, method: str, seed: int) -> TrainedRun:
    folder = tested_runs(config, part).get((method, seed))
    if folder is None:
        raise BearrayError(
            f"{method.upper()} of {part.folder}, seed {seed}, is not there: its training failed"
        )
    return open_run(folder)


def _telling(what: str) -> OnShard:
    return lambda done, total: say(f"{what}: shard {done}/{total}")


def _d3(config: PaperConfig, part: Part) -> Step:
    storage = part_storage(config, part).child(DECODED)

    def place(seed: int) -> Storage:
        return storage.child(f"{D3}-{seed}")

    def missing() -> list[int]:
        return [seed for seed in config.seeds if not place(seed).exists(RESULT)]

    def decodes() -> Decodings:
        left = missing()
        chosen_from = len(config.d3_alpha) if config.seeds[0] in left else 1  # by the first seed's model
        return Decodings(valid=len(left) + chosen_from - 1, test=len(left))

    def do() -> None:
        connect()
        own: dict[str, Any] = {"decoding.method": D3, "decoding.d3_scores": config.d3_scores}
        if (epochs := _d3_epochs(config)) is not None:
            own["decoding.d3_sasrec_epochs"] = epochs
        options = [{**own, "decoding.d3_alpha": alpha} for alpha in config.d3_alpha]
        valid = storage.child("valid")
        first = _trained(config, part, "sft", config.seeds[0])
        changes = choose_decoding(first, options, valid, on_shard=_telling(f"{D3} of {first.name}"))
        for seed in config.seeds:
            run = _trained(config, part, "sft", seed)
            kind = base_model_kind(part.base)
            telling = _telling(f"{D3} of {run.name}")
            redecoded(run, changes, place(seed), valid=valid, method=D3.upper(), kind=kind, on_shard=telling)

    def check() -> None:
        # what was tried on validation, whether or not it was chosen
        tried = [d for d in _manifests(storage.child("valid")) if d["decoding"]["method"] == D3]
        asked = [(alpha, _d3_model(config.d3_scores, _d3_epochs(config))) for alpha in config.d3_alpha]
        there = sorted(
            {
                (d["d3_alpha"], _d3_model(d["d3_scores"], d.get("d3_sasrec_epochs")))
                for d in (manifest["decoding"] for manifest in tried)
            }
        )
        ended = place(config.seeds[0]).exists(RESULT)
        if set(there) - set(asked) or (ended and len(asked) > 1 and set(asked) - set(there)):
            raise ResumeError(
                f"{storage.root} was decoded with {_d3_words(there)}, and is asked for with "
                f"{_d3_words(asked)}; repeat the earlier --d3-alpha, --d3-scores and --d3-sasrec-epochs, or "
                "choose another --storage"
            )

    return Step(
        title="decode SFT's model with D3",
        part=part,
        runs=lambda: len(config.seeds),
        done=lambda: len(config.seeds) - len(missing()),
        do=do,
        check=check,
        decodes=decodes,
        unpriced="the training of SASRec, where it is not there yet" if config.d3_scores == "sasrec" else "",
    )


def _manifests(folder: Storage) -> list[dict[str, Any]]:
    """What the tables of shards right below a folder are of."""
    names = folder.names() if folder.exists() else []
    return [folder.read_json(f"{name}/{MANIFEST}") for name in names if folder.exists(f"{name}/{MANIFEST}")]


_SASREC_EPOCHS = SASRecConfig().train.epochs


def _d3_epochs(config: PaperConfig) -> int | None:
    """`decoding.d3_sasrec_epochs`: the default is not named, so that it is the same wherever it is from."""
    epochs = config.d3_sasrec_epochs or config.baseline_epochs
    return epochs if config.d3_scores == "sasrec" and epochs != _SASREC_EPOCHS else None


def _d3_model(scores: str, epochs: int | None) -> str:
    """popularity, or SASRec with its epochs."""
    return f"sasrec of {epochs or _SASREC_EPOCHS} epochs" if scores == "sasrec" else scores


def _d3_words(options: Sequence[tuple[float, str]]) -> str:
    """d3_alpha 0.5, 0.9 and d3_scores sasrec of 20 epochs."""
    alphas, scores = (dict.fromkeys(str(option[i]) for option in options) for i in (0, 1))
    return f"d3_alpha {', '.join(alphas)} and d3_scores {', '.join(scores)}"


def _pruning(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    analysis = Analysis(windows=config.pruning_windows, widths=(), node_budget=config.pruning_budget)
    seed = config.seeds[0]

    def done() -> int:
        runs = tested_runs(config, part)
        return sum((m, seed) in runs and runs[m, seed].exists("pruning/summary.json") for m in methods)

    def check() -> None:
        runs = tested_runs(config, part)
        for method in sorted(methods):
            folder = runs[method, seed].child("pruning") if (method, seed) in runs else None
            if folder is None or not folder.exists(MANIFEST):
                continue
            made = folder.read_json(MANIFEST)
            wanted = {"pruning_windows": config.pruning_windows, "pruning_budget": config.pruning_budget}
            before = {"pruning_windows": made["rows"], "pruning_budget": made["node_budget"]}
            if wanted["pruning_windows"] is None or wanted["pruning_windows"] > made["of"]:
                wanted["pruning_windows"] = made["of"]
            if changed := differences(before, wanted):
                raise ResumeError(
                    f"{folder.root} was measured with other settings ({'; '.join(changed)}); repeat them, or "
                    "choose another --storage"
                )

    def do() -> None:
        connect()
        for method in sorted(methods):
            run = _trained(config, part, method, seed)
            # A paper's own runs: what they name is what its sweeps were told to use.
            own = run.config
            settings = analysis.settings(run, data_dir=own.data.path, base_model=own.model.base)
            begin_measuring(settings, run.checkpoint, analysis.folder(run), **analysis.options())
            analyse_run(run, settings, analysis, on_shard=_telling(f"prunings of {run.name}"))

    return Step(
        title=f"measure what beam search prunes of {labels(methods)}",
        part=part,
        runs=lambda: len(methods),
        done=done,
        do=do,
        check=check,
        unpriced="exact search",
    )


def _timing(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    where = part_storage(config, part).child(FOLDER)

    def measured() -> tuple[list[str], int]:
        """What is timed there, as `_timed` has it, and in how many rounds; none while they go on."""
        if not where.exists(FILE):
            return [], 0
        found = where.read_json(FILE)
        rounds = 0 if found["finished"] is None else len(found["training"]["rounds"])
        return found["settings"]["objectives"], rounds

    def done() -> int:
        objectives, rounds = measured()
        timed = {text.partition(":")[0] for text in objectives}
        return len(methods & timed) if rounds >= config.timing_rounds else 0

    def check() -> None:
        rounds = measured()[1]
        if rounds > config.timing_rounds:
            say(
                f"{where.root} has {rounds} rounds; they all count, though --timing-rounds asks for "
                f"{config.timing_rounds}"
            )

    def do() -> None:
        objectives = _timed(config, part, sorted(methods, key=lambda m: (m != "sft", m)))
        before, _ = measured()
        if before and set(objectives) <= set(before):
            objectives = tuple(before)
        elif before:
            say(f"{where.root} has no times of {labels(set(objectives) - set(before))}: all are timed anew")
            forget(where)
        run_benchmark(
            EfficiencyConfig(
                data_dir=str(data_folder(config, part)),
                storage=part_storage(config, part).root,
                base_model=part_base(config, part),
                objectives=objectives,
                decoders=("none",),
                rounds=config.timing_rounds,
                steps=1 if config.smoke else 2,
                warmup_steps=1 if config.smoke else 2,
                run=part_run(config, part),
            )
        )

    title = f"time training steps of {labels(methods)}"
    return Step(
        title=title,
        part=part,
        runs=lambda: len(methods),
        done=done,
        do=do,
        check=check,
        unpriced="the timing",
    )


def _timed(config: PaperConfig, part: Part, methods: Sequence[str]) -> tuple[str, ...]:
    """Methods as `bearray bench objectives` takes them, with the settings of their runs' objectives."""
    sweep = part_sweep(config, part)
    own = method_settings(sweep.method_settings, sweep.objectives, sweep.run)
    prefix, found = "objective.", []
    for method in methods:
        changes = own.get(method, {}).items()
        fields = [f"{k.removeprefix(prefix)}={json.dumps(v)}" for k, v in changes if k.startswith(prefix)]
        found.append(f"{method}:{','.join(fields)}" if fields else method)
    return tuple(found)


def _sensitivity(config: PaperConfig, part: Part) -> Step:
    storage = part_storage(config, part).child(SENSITIVITY)
    seed = config.seeds[0]

    def chosen() -> dict[str, float] | None:
        """BEAR's values; None before they are known."""
        folder = tested_runs(config, part).get(("bear", seed))
        return None if folder is None else _varied(folder)[0]

    def points() -> list[dict[str, float]]:
        return list(sensitivity_points(config, chosen()).values())

    def done() -> int:
        names = storage.names("runs") if storage.exists("runs") else []
        folders = [storage.child("runs", name) for name in names]
        there = [_varied(folder) for folder in folders if finished(folder)]
        return sum((point, seed) in there for point in points()) if chosen() else 0

    def do() -> None:
        _trained(config, part, "bear", seed)  # or the reason why there is nothing to vary
        run_sweep(with_base(config, part, sensitivity_sweep(config, part, chosen())))

    def check() -> None:
        if not storage.exists(SWEEP) or done() == len(points()):
            return
        sweep = sensitivity_sweep(config, part, chosen())
        before = storage.read_json(SWEEP)["sweep"]["method_settings"]
        gone = [text for text in before if text not in sweep.method_settings]
        if gone:
            raise ResumeError(
                f"{storage.root} was begun with other --lam or --xi: {', '.join(gone)}; repeat them, with "
                "more at their ends where more are wanted, or choose another --storage"
            )
        check_sweep(with_base(config, part, sweep))

    expected = sensitivity_sweep(config, part, chosen())
    return Step(
        title="train BEAR with other values of lambda and xi",
        part=part,
        runs=lambda: len(points()),
        done=done,
        do=do,
        check=check,
        trains=expected,
        methods=frozenset(expected.objectives),
    )


def _varied(folder: Storage) -> tuple[dict[str, float], int]:
    """Lambda and xi of a run, and its seed."""
    run = folder.read_json(CONFIG)["run"]
    return {axis: run["objective"][axis] for axis in ("lam", "xi")}, int(run["train"]["seed"])


def _baseline(config: PaperConfig, name: str, method: str) -> Step:
    part = Part(name, "bigrec", config.base_model)
    entry = baseline(method)
    data = _baseline_data(config.run, absolute(str(data_folder(config, part))))

    def settings(seed: int) -> Any:
        epochs = {} if config.baseline_epochs is None else {"train.epochs": config.baseline_epochs}
        chains = {"chains": config.chains} if method == "llm-cf" and config.chains is not None else {}
        return override(entry.config(), {**epochs, **chains, "train.seed": seed})

    def place(seed: int) -> Storage:
        what = config_hash([to_dict(settings(seed)), to_dict(data) | {"path": ""}, part.base], 6)
        return Storage(config.storage).child(name, BASELINES, f"{method}-{seed}-{what}")

    def do() -> None:
        for seed in config.seeds:
            if place(seed).exists(RESULT):
                continue
            teacher = None
            if entry.llm == "teacher":
                teacher = _trained(config, part, "sft", config.seeds[0]).folder.root
            actors = config.run.evaluation.actors
            llm = LanguageModelConfig(base_model=part_base(config, part), teacher=teacher, actors=actors)
            train_and_test(method, settings(seed), data, place(seed), llm=llm, connect=connect)

    def done() -> int:
        return sum(place(seed).exists(RESULT) for seed in config.seeds)

    def decodes() -> Decodings:
        """The teacher's lists serve all seeds."""
        return Decodings(train=int(done() == 0))

    others = {
        "none": "",
        "teacher": " and vectors of titles",
        "chains": ", vectors of titles and chains of thought",
    }
    return Step(
        title=f"train and test {method}",
        part=part,
        runs=lambda: len(config.seeds),
        done=done,
        do=do,
        decodes=decodes if entry.llm == "teacher" else None,
        unpriced=f"its own training{others[entry.llm]}",
    )


def _baseline_data(run: RunConfig, path: str) -> DataConfig:
    """The test windows are those of the LLM recommenders; training and validation splits are taken whole."""
    return replace(run.data, path=path, train_windows=None, valid_windows=None, domain="auto")
