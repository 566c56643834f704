"""Beyond accuracy in the report: the numbers, what is said without the data set, hostile names."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bearray import beyond_accuracy as measures
from bearray.data import clean_title, open_dataset
from bearray.report import build_tables, collect, write_report
from bearray.report.background import Backgrounds, lists_of
from bearray.report.beyond import TARGETS, BeyondTable, build_beyond
from tests.report.storage import write_run, write_run_on
from tests.report.test_report import Page


@pytest.fixture(scope="module")
def storage(demo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT with two seeds and MSL, on the demo data. Read only."""
    folder = tmp_path_factory.mktemp("beyond")
    for seed in (1, 2):
        write_run_on(folder / f"sft-{seed}", demo_dir, method="SFT", seed=seed, changes={"train.seed": seed})
    write_run_on(folder / "msl", demo_dir, method="MSL", seed=3)
    return folder


def tables(storage: Path, data_dir: str | None = None) -> list[BeyondTable]:
    return build_beyond(build_tables(collect(storage).runs), Backgrounds(data_dir))


def test_numbers_equal_those_worked_out_from_files(storage: Path, demo_dir: Path) -> None:
    (table,) = tables(storage)
    assert [(r.label, r.seeds) for r in table.rows] == [("SFT", 2), ("MSL", 1), (TARGETS, 1)]
    dataset = open_dataset(demo_dir)
    title = {
        int(i): clean_title(t) for i, t in zip(dataset.items["item_id"], dataset.items["title"], strict=True)
    }
    phi: dict[str, int] = dict.fromkeys(title.values(), 0)
    for window in dataset.train["item_ids"]:
        phi[title[int(window[-1])]] += 1
    assert table.titles == len(phi)
    windows = dataset.sample("test", 5000, 42)["item_ids"]
    before = [np.mean([phi[title[int(i)]] for i in w[:-1]]) for w in windows]

    def lists(run: str) -> list[list[str]]:
        frame = pd.read_parquet(storage / run / "predictions" / "shard-00000.parquet")
        return [[title[int(i)] for i in items] for items in frame["items"]]

    popular = {
        run: [np.mean([phi[t] for t in row]) for row in lists(run)] for run in ("sft-1", "sft-2", "msl")
    }
    sft, msl, targets = table.rows
    assert msl.values["arp"].value == pytest.approx(np.mean(popular["msl"]))
    both = np.mean([popular["sft-1"], popular["sft-2"]], axis=0)
    assert sft.values["arp"].value == pytest.approx(both.mean())
    assert sft.values["lift"].value == pytest.approx(both.sum() / np.sum(before) - 1)
    assert sft.values["arp"].low < both.mean() < sft.values["arp"].high  # type: ignore[operator]
    distinct = [len({t for row in lists(run) for t in row}) for run in ("sft-1", "sft-2")]
    assert sft.values["titles"].value == np.mean(distinct)
    assert sft.values["coverage"].value == pytest.approx(np.mean(distinct) / len(phi))
    assert sft.values["titles"].low is None
    assert targets.values["arp"].value == pytest.approx(np.mean([phi[title[int(w[-1])]] for w in windows]))
    assert "titles" not in targets.values and "diversity" not in targets.values
    # exposure of the tail, by a loop
    number = {t: n for n, t in enumerate(phi)}
    group = measures.popularity_groups(list(phi.values()))
    gives = [(group[number[t]], 1 / np.log2(k + 2)) for row in lists("msl") for k, t in enumerate(row)]
    for g, name in enumerate(measures.GROUPS):
        deserved = sum(p for t, p in phi.items() if group[number[t]] == g) / sum(phi.values())
        if deserved:
            got = sum(w for h, w in gives if h == g) / sum(w for _, w in gives)
            assert msl.values[f"ratio_{name}"].value == pytest.approx(got / deserved)


def test_in_every_form_of_the_report(storage: Path, tmp_path: Path) -> None:
    index = write_report(storage, tmp_path / "out")
    page = Page(index.read_text())
    assert "beyond" in page.ids and "Exposure of head" in page.text and TARGETS in page.text
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Beyond accuracy" in text and "| MSL |" in text
    rows = list(csv.DictReader((tmp_path / "out" / "tables" / "beyond.csv").read_text().splitlines()))
    assert {r["method"] for r in rows} == {"SFT", "MSL", TARGETS}
    (latex,) = (tmp_path / "out" / "tables").glob("*-beyond-trie.tex")
    assert latex.read_text().count(r"\begin{tabular}") == 2 and r"\%" in latex.read_text()


def test_without_the_data_set_the_reason_is_told(storage: Path, demo_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(storage, copy)
    moved = tmp_path / "moved" / "demo"
    shutil.copytree(demo_dir, moved)
    for config in copy.rglob("config.json"):
        about = json.loads(config.read_text())
        about["run"]["data"]["path"] = str(tmp_path / "gone" / "demo")
        config.write_text(json.dumps(about))
    (table,) = tables(copy)
    assert [set(r.values) for r in table.rows] == [{"titles", "entropy"}] * 2
    assert table.notes == (
        "Measures that need the data set are left out: the data set demo is not where config.json has it; "
        "give the folder where it is now (--data-dir).",
    )
    page = write_report(copy).read_text()
    assert "is not where config.json has it" in page and str(tmp_path) not in page
    (again,), (whole,) = tables(copy, str(moved)), tables(storage)
    assert [r.values for r in again.rows] == [r.values for r in whole.rows]
    # a file of another version there: found by its content
    items = pd.read_parquet(moved / "items.parquet")
    items.loc[0, "title"] = "Another title"
    items.to_parquet(moved / "items.parquet")
    (other,) = tables(copy, str(moved))
    assert "has content hash" in other.notes[0] and "was trained on" in other.notes[0]


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("path", "s3://bucket/data", "not in a folder here"),
        ("path", "a\0b", "not in a folder here"),
        ("path", "", "not in a folder here"),
        ("path", 5, "run.data.path"),
        ("sample_seed", 43, "test case"),
    ],
)
def test_a_config_that_names_no_folder(
    demo_dir: Path, tmp_path: Path, entry: str, value: object, message: str
) -> None:
    folder = write_run_on(tmp_path / "sft", demo_dir, method="SFT", changes={"data.test_windows": 20})
    about = json.loads((folder / "config.json").read_text())
    about["run"]["data"][entry] = value
    (folder / "config.json").write_text(json.dumps(about))
    (table,) = tables(tmp_path)
    assert message in table.notes[0]
    write_report(tmp_path)


def test_a_damaged_data_set_is_a_note_without_its_place(demo_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "private" / "demo"
    shutil.copytree(demo_dir, data)
    write_run_on(tmp_path / "storage" / "sft", data, method="SFT")
    (data / "sequences_test.parquet").write_bytes(b"PAR1")
    (table,) = tables(tmp_path / "storage")
    assert "demo/sequences_test.parquet" in table.notes[0] and "private" not in table.notes[0]


def test_runs_without_lists_have_no_section(tmp_path: Path) -> None:
    write_run(tmp_path / "sft", method="SFT", n=20)
    assert tables(tmp_path) == []


def test_lists_of_uneven_length() -> None:
    frame = pd.DataFrame({"items": [np.array([5, 6, 7]), np.array([], dtype=int), np.array([8, -1])]})
    assert lists_of(frame, 2).tolist() == [[5, 6], [-1, -1], [8, -1]]


def test_short_lists_are_counted(demo_dir: Path, tmp_path: Path) -> None:
    folder = write_run_on(tmp_path / "sft", demo_dir, method="SFT", hit=0.0)
    shard = folder / "predictions" / "shard-00000.parquet"
    frame = pd.read_parquet(shard)
    frame["items"] = [items[:4] if row == 0 else items for row, items in enumerate(frame["items"])]
    frame.to_parquet(shard)
    (table,) = tables(tmp_path)
    assert table.notes == (
        f"Lists with fewer than 10 titles: SFT {1 / len(frame):.1%}. "
        "Means are over the titles that are there.",
    )
