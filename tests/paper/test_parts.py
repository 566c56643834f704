"""What tables and figures need: each run once, and the same sweeps whatever was asked for first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearray.config import to_dict
from bearray.errors import ConfigError
from bearray.paper.config import FIGURES, TABLES, PaperConfig, defaults
from bearray.paper.parts import Part, all_methods, base_part, elements, needs, needs_of
from bearray.paper.sweeps import part_sweep, sensitivity_sweep
from bearray.tuning.config import CPU

MAIN = Part("office", "bigrec", "llama-3.2-3b")


def config(**changes: object) -> PaperConfig:
    return replace(defaults(), **{"datasets": ("office", "book"), **changes})  # type: ignore[arg-type]


def test_everything_is_asked_for_unless_something_is() -> None:
    assert elements(config()) == [("table", n) for n in TABLES] + [("figure", n) for n in FIGURES]
    assert elements(config(table=(4, 2))) == [("table", 2), ("table", 4)]
    assert elements(config(figure=(8,))) == [("figure", 8)]


def test_samples_that_nobody_asked_for_need_not_be_there() -> None:
    assert not needs(config(datasets=("office",), table=(2,))).timing
    everything = needs(config(datasets=("office",)))
    assert not any(part.sampled for part in everything.methods)


def test_a_run_needed_twice_is_needed_once() -> None:
    both = needs(config(table=(2,), figure=(6, 7)))
    assert both.methods[MAIN] == needs_of(config(), "table", 2).methods[MAIN] | {"sdpo_bear"}
    assert both.pruning[MAIN] == {"sft", "msl", "bear"}
    assert set(both.methods) == {MAIN, replace(MAIN, dataset="book")}
    assert not both.timing and not both.sensitivity


def test_each_element_needs_its_own() -> None:
    asked = config()
    assert needs_of(asked, "table", 1) == needs(config(table=(1,)))
    assert not needs_of(asked, "table", 1).methods
    assert {p.backbone for p in needs_of(asked, "table", 3).methods} == {"llara", "allmrec"}
    assert {p.base for p in needs_of(asked, "table", 4).methods} == {"llama-3.2-1b", "llama-3-8b"}
    (sample,) = needs_of(asked, "table", 5).methods
    assert sample == Part("book", "bigrec", "llama-3.2-3b", sampled=True) and sample.data_name == "book-s"
    assert needs_of(asked, "figure", 5).timing == {sample: {"sft", "bear", "beam_simulation"}}
    assert needs_of(asked, "figure", 8).sensitivity == {MAIN, replace(MAIN, dataset="book")}
    assert needs_of(asked, "table", 2).baselines["book"] == set(asked.baselines)


def test_sizes_of_one_model_share_its_runs() -> None:
    same = config(base_model="local:tiny", smaller_model="local:tiny", larger_model=None)
    assert set(needs_of(same, "table", 4).methods) == {base_part(same, name) for name in same.datasets}


def test_a_part_has_the_same_sweep_whatever_is_asked_for() -> None:
    one, other = config(table=(4,)), config(figure=(7,), dry_run=True)
    assert to_dict(part_sweep(one, MAIN)) == to_dict(part_sweep(other, MAIN))
    assert all_methods(one, MAIN)[0] == "sft" and "sdpo_bear" in all_methods(one, MAIN)
    assert part_sweep(one, MAIN).searched == ("bear", "sdpo_bear")
    assert "sdpo,sdpo_bear,rosepo:train.batch_size=64" in part_sweep(one, MAIN).method_settings


def test_folders_are_apart() -> None:
    parts = [
        Part("office", "bigrec", "local:tiny"),
        Part("office", "llara", "local:tiny"),
        Part("office", "bigrec", "/models/a/base"),
        Part("office", "bigrec", "/models/b/base"),
        Part("office", "bigrec", "local:tiny", sampled=True),
    ]
    assert len({part.folder for part in parts}) == len(parts)
    assert parts[0].folder == "office/bigrec-local-tiny"


def test_backbones_get_short_vectors_at_small_scales_only() -> None:
    llara = replace(MAIN, backbone="llara")
    assert part_sweep(config(), llara).run.model.soft.sasrec.train.epochs == 200
    small = config().at_scale("cpu", CPU)
    tiny = replace(MAIN, base="local:tiny")
    soft = part_sweep(small, replace(tiny, backbone="llara")).run.model.soft
    assert soft.sasrec.train.epochs == small.baseline_epochs
    assert part_sweep(small, tiny).run.model.soft == config().run.model.soft


def test_sensitivity_varies_one_thing_at_a_time() -> None:
    asked = config(lam=(0.5, 1.0), xi=(0.5, 2.0))
    sweep = sensitivity_sweep(asked, MAIN, {"lam": 0.5, "xi": 0.75})
    assert sweep.methods == ("lam0=bear", "xi0=bear", "xi1=bear")
    assert (
        "lam0:objective.lam=1.0" in sweep.method_settings
        and "lam0:objective.xi=0.75" in sweep.method_settings
    )
    assert (
        "xi1:objective.xi=2.0" in sweep.method_settings and "xi1:objective.lam=0.5" in sweep.method_settings
    )
    assert not sweep.test and not sweep.searched and sweep.storage.endswith("/sensitivity")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": (6,)}, "--table has 6"),
        ({"figure": (2,)}, "--figure has 2"),
        ({"datasets": ("../x",)}, "datasets has '../x'"),
        ({"datasets": ()}, "datasets is"),
        ({"seeds": (1, 1)}, "seeds is"),
        ({"methods": ("sft", "msl")}, "methods lacks bear"),
        ({"methods": ("sft", "bear", "nothing")}, "methods has 'nothing'"),
        ({"baselines": ("nothing",)}, "baselines has 'nothing'"),
        ({"table": (5,), "datasets": ("office",)}, r"--table 5 .* has none .* --sampled office"),
        ({"figure": (5,), "datasets": ("office",)}, r"--figure 5 .* has none"),
        ({"table": (5,), "sampled": ()}, r"--table 5 .* has none"),
        ({"sampled": ("book", "toys")}, r"sampled has 'toys'.* office, book"),
        ({"trials": 0}, "trials"),
        ({"pruning_windows": 0}, "pruning_windows"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)
