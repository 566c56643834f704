"""Runs against one another: numbers by hand, groups, examples, and runs that cannot be compared."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bearray.cli import run as bearray
from bearray.data import clean_title, open_dataset
from bearray.errors import ConfigError, DataError
from bearray.report.background import Backgrounds
from bearray.report.breakdown import numbered
from bearray.report.collect import read_run
from bearray.report.records import Run
from bearray.report.versus import Versus, compare_runs
from bearray.report.versus_text import html, markdown, write_versus
from bearray.stats import holm, paired_test
from bearray.task import load_task
from tests.report.storage import also_decoded, as_baseline, write_run, write_run_on
from tests.report.test_report import Page
from tests.report.test_tables import METRICS, by_hand

NAMES = ("sft", "msl", "bear")


@pytest.fixture(scope="module")
def folder(demo_dir: Path, micro_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on the demo data. Read only."""
    where = tmp_path_factory.mktemp("versus")
    for seed, (name, hit) in enumerate(zip(NAMES, (0.05, 0.4, 0.95), strict=True)):
        write_run_on(
            where / name, demo_dir, method=name.upper(), hit=hit, seed=seed,
            changes={"model.base": str(micro_base)},
        )  # fmt: skip
    return where


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Run]:
    return [read_run(folder / name, name) for name in NAMES]


@pytest.fixture(scope="module")
def versus(runs: list[Run]) -> Versus:
    return compare_runs(runs, examples=2)


def frame(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / name / "predictions" / "shard-00000.parquet")


def values(folder: Path, name: str, metric: str) -> np.ndarray:
    return np.array([by_hand(rank, metric) for rank in frame(folder, name)["rank"]])


def test_differences_of_all_pairs_and_metrics(folder: Path, versus: Versus) -> None:
    users = frame(folder, "sft")["user_id"]
    tests = {
        (metric, b.upper(), a.upper()): paired_test(
            values(folder, b, metric), values(folder, a, metric), users
        )
        for metric in METRICS
        for a, b in itertools.combinations(NAMES, 2)
    }
    corrected = dict(zip(tests, holm([t.p_value for t in tests.values()]), strict=True))
    assert len(versus.differences) == len(tests) == 15
    for d in versus.differences:
        c, test = d.comparison, tests[d.metric, d.label, d.comparison.versus]
        assert (c.difference, c.low, c.high) == pytest.approx((test.mean_difference, test.low, test.high))
        assert c.p == pytest.approx(test.p_value)
        assert c.p_holm == pytest.approx(corrected[d.metric, d.label, c.versus])
    best = next(d for d in versus.differences if (d.metric, d.label) == ("hr@10", "BEAR"))
    assert best.comparison.versus == "SFT" and best.comparison.verdict == "better"
    by_user = (
        pd.Series(values(folder, "bear", "hr@10") - values(folder, "sft", "hr@10")).groupby(users).mean()
    )
    assert best.comparison.difference == pytest.approx(by_user.mean())


def test_groups_by_data_and_trie(
    folder: Path, versus: Versus, demo_dir: Path, make_run: Callable[..., Any]
) -> None:
    cases, dataset = frame(folder, "sft"), open_dataset(demo_dir)
    windows = dataset.sample("test", 5000, 42)["item_ids"]
    task = load_task(make_run())
    title = {i: clean_title(t) for i, t in zip(dataset.items["item_id"], dataset.items["title"], strict=True)}
    chosen = [title[w[-1]] for w in dataset.train["item_ids"]]
    targets = [title[t] for t in cases["target"]]

    def path(text: str) -> tuple[int, int]:
        """Branching steps, and titles behind the first choice, from the titles' tokens alone."""
        tokens = [[*task.catalog.tokens[i], -1] for i in range(len(task.catalog))]
        own = tokens[task.catalog.titles.index(text)]
        steps, crowd = 0, 1
        for n in range(len(own)):
            same = [other for other in tokens if other[:n] == own[:n]]
            if len({other[n] for other in same}) > 1:
                steps += 1
                if steps == 1:
                    crowd = sum(other[n] == own[n] for other in same)
        return steps, crowd

    paths = {text: path(text) for text in set(targets)}
    wanted = {
        "Titles in the history": [len(w) - 1 for w in windows],
        "Words of the target's title": [len(t.split()) for t in targets],
        "Popularity of the target (training targets)": [chosen.count(t) for t in targets],
        "Branching steps of the target's title": [paths[t][0] for t in targets],
        "Titles behind the target's first choice": [paths[t][1] for t in targets],
    }
    assert not versus.notes
    found = {g.dimension for g in versus.groups}
    assert found == {"Target", *wanted}
    own = {name: values(folder, name, "ndcg@10") for name in NAMES}
    for dimension, each in wanted.items():
        rows = [g for g in versus.groups if g.dimension == dimension]
        assert sum(g.n for g in rows) == len(cases)
        for g in rows:
            ends = [int(x.replace(",", "")) for x in g.group.split(" to ")]
            mask = (np.array(each) >= ends[0]) & (np.array(each) <= ends[-1])
            assert g.n == mask.sum() and g.users == cases["user_id"][mask].nunique()
            assert g.means == pytest.approx([own[name][mask].mean() for name in NAMES])
            test = paired_test(own["bear"][mask], own["sft"][mask], cases["user_id"][mask])
            assert g.comparisons[1].difference == pytest.approx(test.mean_difference)
    warm = next(g for g in versus.groups if g.group.startswith("warm"))
    assert warm.n == cases["warm"].sum()
    ps = [c.p for g in versus.groups for c in g.comparisons]
    assert [c.p_holm for g in versus.groups for c in g.comparisons] == pytest.approx(holm(ps))


def test_groups_keep_equal_numbers_together() -> None:
    found = numbered("x", [0] * 60 + [1] * 20 + [2] * 10 + [7] * 10, 4)
    assert [(label, int(mask.sum())) for label, mask in found.groups] == [
        ("0", 60),
        ("1", 20),
        ("2 to 7", 20),
    ]
    assert sum(mask for _, mask in found.groups).tolist() == [1] * 100  # type: ignore[union-attr]
    tenths = numbered("x", range(1000), 10)
    assert [label for label, _ in tenths.groups][:2] == ["0 to 99", "100 to 199"]
    assert [label for label, _ in numbered("x", [5, 5], 4).groups] == ["5"]


def test_examples_are_the_largest_wins_and_losses(folder: Path, versus: Versus, demo_dir: Path) -> None:
    dataset = open_dataset(demo_dir)
    title = {i: clean_title(t) for i, t in zip(dataset.items["item_id"], dataset.items["title"], strict=True)}
    windows = dataset.sample("test", 5000, 42)["item_ids"]
    gain = values(folder, "bear", "ndcg@10") - values(folder, "sft", "ndcg@10")
    shown = versus.examples["BEAR"]
    assert [e.won for e in shown] == [True, True]  # no case is lost
    assert [e.difference for e in shown] == sorted(gain)[::-1][:2]
    sft, _, bear = (c.run for c in versus.contenders)
    turned = compare_runs([bear, sft], examples=2).examples["SFT"]
    assert [(e.row, e.difference, e.won) for e in turned] == [(e.row, -e.difference, False) for e in shown]
    for e in shown:
        case = frame(folder, "bear").set_index("row").loc[e.row]
        assert e.target == title[case["target"]] and e.user == case["user_id"]
        assert e.history == tuple(title[i] for i in windows[e.row][:-1])
        assert e.other.titles == tuple(title[i] for i in case["items"])
        assert e.other.rank == (case["rank"] + 1 if np.isfinite(case["rank"]) else None)
        if e.other.rank:
            assert e.other.titles[int(e.other.rank) - 1] == e.target
    alike = compare_runs(
        [replace(versus.contenders[0].run, id="a"), replace(versus.contenders[0].run, id="b")]
    )
    assert list(alike.examples.values()) == [()] and {d.comparison.p for d in alike.differences} == {1.0}


def test_files(folder: Path, versus: Versus, tmp_path: Path) -> None:
    page = Page(write_versus(versus, tmp_path / "out").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert "BEAR against SFT: example users" in page.text and "Where they differ" in page.text
    assert sum(tag == "article" for tag, _ in page.elements) == sum(map(len, versus.examples.values()))
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| NDCG@10 | BEAR | SFT |" in text and "**Test case" in text
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    ranks = frame(folder, "bear")["rank"]
    assert [r["rank BEAR"] for r in rows] == ["" if np.isinf(x) else str(int(x)) for x in ranks]
    groups = list(csv.DictReader((tmp_path / "out" / "groups.csv").read_text().splitlines()))
    assert len(groups) == 3 * len(versus.groups)
    assert len(list(csv.DictReader((tmp_path / "out" / "differences.csv").read_text().splitlines()))) == 15


def test_titles_are_text_and_no_markup(folder: Path, demo_dir: Path, tmp_path: Path, capsys: Any) -> None:
    data = tmp_path / "data" / "demo"
    shutil.copytree(demo_dir, data)
    items = pd.read_parquet(data / "items.parquet")
    items["title"] = [f"<script>alert({i})</script> [red]*x*|\x1b[31m {i}" for i in range(len(items))]
    items.to_parquet(data / "items.parquet")
    changes = {"model.base": "nowhere/at-all"}
    for seed, name in enumerate(("sft", "row")):
        write_run_on(tmp_path / name, data, method=name, seed=seed, hit=0.5 * seed, changes=changes)
    both = [read_run(tmp_path / name, name) for name in ("sft", "row")]
    found = compare_runs(both, examples=1)
    assert "<script>" not in html(found) and "&lt;script&gt;" in html(found)
    assert "<script>" not in markdown(found) and r"\[red\]\*x\*\|" in markdown(found)
    assert bearray(["compare", str(tmp_path / "sft"), str(tmp_path / "row"), "--examples", "1"]) == 0
    out = capsys.readouterr().out
    assert "[red]*x*" in out and "\x1b" not in out


def test_what_is_missing_is_said(folder: Path, runs: list[Run], tmp_path: Path) -> None:
    def changed(group: str, entries: dict[str, Any]) -> list[Run]:
        return [replace(r, settings={**r.settings, group: {**r.settings[group], **entries}}) for r in runs]

    without = compare_runs(changed("data", {"path": str(tmp_path / "gone")}), examples=1)
    assert {g.dimension for g in without.groups} == {"Target"}
    assert "the data set gone is not where config.json has it" in without.notes[0]
    example = without.examples["BEAR"][0]
    assert example.history is None and example.target.startswith("item ")
    assert "not known without the data set" in markdown(without)
    for base, message in (
        (str(tmp_path / "gone"), "the base model gone is not here"),
        ("local:tiny", "is not in a folder here"),
        ("nobody/nothing-at-all", "was not downloaded here"),
        ("a b c", "was not downloaded here"),
    ):
        tokenless = compare_runs(changed("model", {"base": base}), examples=0)
        assert message in tokenless.notes[0] and len({g.dimension for g in tokenless.groups}) == 4
    # one run that leads to them is enough
    mixed = [*changed("data", {"path": str(tmp_path / "gone")})[:2], runs[2]]
    assert not compare_runs(mixed).notes
    own = runs[0].settings["data"]["path"]
    assert not compare_runs(changed("data", {"path": "gone"}), backgrounds=Backgrounds(own)).notes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data_hash": "e" * 16}, r"their data folders differ \(data_hash\)"),
        (
            {"changes": {"data.test_windows": 9}},
            r"SFT has 20 cases, BEAR has 9, and \d are in both .*test_windows: 20 -> 9",
        ),
        ({"hit": None}, "has no test results: trained, but"),
        ({"hit": None, "status": "shelved"}, r"other \(shelved\) has no test results: it was not tested"),
        ({"status": "failed", "error": "lost"}, r"other \(failed\) has no test results: lost"),
    ],
)
def test_runs_that_cannot_be_compared(
    demo_dir: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    write_run_on(tmp_path / "one", demo_dir, method="SFT", changes={"data.test_windows": 20})
    if more.get("hit", 0) is None or "status" in more:
        write_run(tmp_path / "other", method="BEAR", **more)
    else:
        write_run_on(
            tmp_path / "other", demo_dir, method="BEAR", **{"changes": {"data.test_windows": 20}, **more}
        )
    one, other = (read_run(tmp_path / name, name) for name in ("one", "other"))
    with pytest.raises((DataError, ConfigError), match=message):
        compare_runs([one, other])


def test_the_same_windows_cut_otherwise(demo_dir: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 42), ("other", 43)):
        changes = {"data.test_windows": 20, "data.sample_seed": seed}
        write_run_on(tmp_path / name, demo_dir, method=name, changes=changes)
    both = [read_run(tmp_path / name, name) for name in ("one", "other")]
    with pytest.raises(
        DataError, match=r"one and other were not tested on the same cases: .*sample_seed: 42"
    ):
        compare_runs(both)


def test_mistakes(folder: Path, tmp_path: Path, capsys: Any) -> None:
    sft, msl = str(folder / "sft"), str(folder / "msl")

    def fails(*arguments: str) -> str:
        assert bearray(["compare", *arguments]) == 2
        return str(capsys.readouterr().err)

    assert "give two run folders or more" in fails(sft)
    assert "is given more than once" in fails(sft, sft + "/")
    assert f"{folder} has no config.json; give run folders" in fails(sft, str(folder))
    assert "does not exist" in fails(sft, str(tmp_path / "nothing"))
    assert "must be hr@K or ndcg@K" in fails(sft, msl, "--metric", "mrr")
    assert "the lists of sft have 10 titles; take a smaller K" in fails(sft, msl, "--metric", "hr@11")
    assert "no test results with decoding 'full' but with trie" in fails(sft, msl, "--decoding", "full")
    assert "--examples is -1" in fails(sft, msl, "--examples", "-1")


def test_a_length_penalty_and_a_baseline(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Whatever runs were tested by can be compared; a baseline's one result stands beside all of it."""
    for name in NAMES:
        shutil.copytree(folder / name, tmp_path / name)
    also_decoded(also_decoded(tmp_path / "sft", "full_lp1"), "exact")
    also_decoded(tmp_path / "msl", "full_lp1")
    as_baseline(tmp_path / "bear")
    sft, msl, baseline = (str(tmp_path / name) for name in NAMES)

    def shown(*arguments: str) -> str:
        assert bearray(["compare", *arguments, "--examples", "0"]) == 0
        return str(capsys.readouterr().out)

    assert "(full) and length penalty 1" in shown(sft, msl, "--decoding", "full_lp1")
    text = shown(baseline, sft, msl, "--decoding", "full_lp1")
    assert "No decoder is behind BEAR: all titles are scored" in text
    assert "exact search" in shown(sft, baseline, "--decoding", "exact")
    assert bearray(["compare", sft, msl, "--decoding", "exact"]) == 2
    assert "but with trie, full_lp1; give --decoding trie or full_lp1" in capsys.readouterr().err
    runs = [read_run(tmp_path / name, name) for name in NAMES]
    beside, alone = compare_runs([runs[2], runs[0]], decoding="exact"), compare_runs([runs[2], runs[0]])
    assert [d.comparison for d in beside.differences] == [d.comparison for d in alone.differences]
    both = compare_runs([runs[2], replace(runs[2], id="again")])
    assert markdown(both).splitlines()[2].endswith("all titles scored.") and "No decoder" not in html(both)


def test_command(folder: Path, tmp_path: Path, capsys: Any) -> None:
    again = tmp_path / "sft"  # another run with the same folder name
    shutil.copytree(folder / "bear", again)
    places = [str(folder / "sft"), str(again)]
    assert bearray(["compare", *places, "--metric", "hr@5", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "Where they differ, by HR@5" in text and "BEAR against SFT" in text
    assert str(tmp_path / "out" / "index.html") in text
    assert str(folder / "sft") in text  # two runs called sft are told apart by their folders
