"""All runs of all storages: who may be ranked with whom, filters, formats, and the export for other tools."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from bearray.cli import run as bearray
from bearray.errors import ConfigError, DataError
from bearray.report.collect import collect
from bearray.report.leaderboard import Board, build_boards, chosen_runs, gather
from bearray.report.leaderboard_text import as_json, cells, fitting, latex, markdown
from bearray.report.trec import write_trec
from bearray.stats import bootstrap_interval
from tests.report.storage import also_decoded, as_baseline, write_run, write_run_on
from tests.report.test_tables import by_hand, raw

SMALL: dict[str, Any] = {"n": 40, "users_count": 20, "epochs": 1}


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`one`: SFT with two seeds, BEAR chosen and not, a failed run; `two`: MSL on the same cases, SFT on
    other data, SFT on other cases. Read only."""
    one, two = (tmp_path_factory.mktemp("boards") / name for name in ("one", "two"))
    for seed, hit in ((1, 0.2), (2, 0.4)):
        write_run(
            one / f"sft-{seed}", method="SFT", hit=hit, seed=seed, changes={"train.seed": seed}, **SMALL
        )
    for i, lam in enumerate((0.5, 2.0)):
        more = {"role": "trial", "chosen": not i, "changes": {"objective.lam": lam}, "valid": 0.2 - 0.1 * i}
        write_run(one / f"bear-{i}", method="BEAR", hit=0.9 if not i else None, seed=5 + i, **SMALL, **more)
    write_run(
        one / "dpo", method="DPO", status="failed", error="out of memory", hit=None, valid=None, **SMALL
    )
    write_run(two / "runs" / "msl", method="MSL", hit=0.5, seed=7, **SMALL)
    write_run(two / "runs" / "other-data", method="SFT", hit=0.99, seed=8, data_hash="e" * 16, **SMALL)
    cut = {"data.test_windows": 30}
    write_run(two / "runs" / "other-cases", method="SFT", hit=0.99, seed=9, changes=cut, **{**SMALL, "n": 30})
    return one, two


def boards(*storages: Path, **more: Any) -> list[Board]:
    return build_boards(gather([(s.name, s) for s in storages]), **more)


def methods(board: Board) -> list[tuple[int | None, str]]:
    return [(e.place, e.run.method) for e in board.entries]


def test_only_runs_on_the_same_cases_are_ranked_together(storages: tuple[Path, Path]) -> None:
    main, *others = boards(*storages)
    assert methods(main) == [(1, "BEAR"), (2, "MSL"), (3, "SFT"), (None, "BEAR"), (None, "DPO")]
    assert (main.cases, main.users) == (40, 20)
    assert [[(e.run.id, e.place) for e in b.entries] for b in others] == [
        [("two/runs/other-cases", 1)], [("two/runs/other-data", 1)],
    ]  # fmt: skip
    best, _, sft, trial, failed = main.entries
    assert [r.id for r in sft.runs] == ["one/sft-1", "one/sft-2"] and best.settings == {
        "objective.lam": "0.5"
    }
    assert trial.settings == {"objective.lam": "2"} and trial.decoding is None and not trial.scores
    assert (failed.run.status, failed.run.reason) == ("failed", "out of memory")


def test_scores_are_means_over_seeds_with_intervals_over_users(storages: tuple[Path, Path]) -> None:
    entry = next(e for e in boards(storages[0])[0].entries if e.run.method == "SFT")
    data = [raw(storages[0] / f"sft-{seed}" / "predictions") for seed in (1, 2)]
    for metric in ("ndcg@10", "hr@1"):
        seeds = np.array([[by_hand(rank, metric) for rank in d["rank"]] for d in data])
        wanted = bootstrap_interval(seeds.mean(axis=0), data[0]["user_id"])
        score = entry.scores[metric]
        assert (score.mean, score.low, score.high) == pytest.approx(wanted)
        assert score.seed_sd == pytest.approx(abs(seeds[0].mean() - seeds[1].mean()) / 2**0.5)
    assert entry.train_seconds == 115 and entry.total_seconds == 165
    (full,) = (e for e in boards(storages[0], decoding="full")[0].entries if e.run.method == "SFT")
    other = [np.mean(raw(storages[0] / f"sft-{s}" / "predictions_full")["rank"] < 10) for s in (1, 2)]
    assert full.decoding == "full" and full.scores["hr@10"].mean == pytest.approx(np.mean(other))


def test_sorting(storages: tuple[Path, Path]) -> None:
    (main,) = boards(storages[0], sort="valid")
    assert methods(main)[0] == (1, "BEAR") and main.entries[0].valid == 0.2
    # two runs share the value, and so the place
    assert [e.place for e in main.entries] == [1, 2, 2, 4]
    (main,) = boards(storages[0], sort="method")
    assert methods(main) == [(None, m) for m in ("BEAR", "BEAR", "DPO", "SFT")]
    totals = [e.total_seconds for e in boards(storages[0], sort="seconds")[0].entries]
    assert totals == sorted(totals)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="--sort is 'mrr'; it must be one of ndcg@5, ndcg@10"):
        boards(storages[0], sort="mrr")


def test_validation_of_other_windows_gives_no_places(tmp_path: Path) -> None:
    for i, windows in enumerate((None, 50)):
        write_run(tmp_path / str(i), method="SFT", changes={"data.valid_windows": windows}, **SMALL)
    (board,) = boards(tmp_path, sort="valid")
    assert [e.place for e in board.entries] == [None, None] and "Validation windows differ" in board.notes[0]
    (board,) = boards(tmp_path)
    assert None not in [e.place for e in board.entries] and not board.notes


def test_filters(storages: tuple[Path, Path]) -> None:
    runs = gather([(s.name, s) for s in storages])
    assert {r.method for r in chosen_runs(runs, {"method": ["sft", "MSL"]}, None)} == {"SFT", "MSL"}
    assert [r.id for r in chosen_runs(runs, {"status": ["failed"]}, None)] == ["one/dpo"]
    assert len(chosen_runs(runs, {"method": ["BEAR"]}, "full")) == 1
    with pytest.raises(ConfigError, match="--base-model is 'gpt'; the runs have local:tiny"):
        chosen_runs(runs, {"base_model": ["gpt"]}, None)
    with pytest.raises(ConfigError, match="none of the 8 runs is left"):
        chosen_runs(runs, {"method": ["DPO"]}, "trie")


def test_a_method_is_asked_for_as_it_is_shown_or_stored(tmp_path: Path) -> None:
    for method in ("D2LR", "SDPO", "SFT"):
        write_run(tmp_path / method, method=method, **SMALL)
    runs = collect(tmp_path).runs
    for words, found in ((["d2lr-ips"], {"D2LR"}), (["S-DPO", "d2lr"], {"SDPO", "D2LR"})):
        assert {r.method for r in chosen_runs(runs, {"method": words}, None)} == found
    with pytest.raises(ConfigError, match="--method is 'MSL'; the runs have D2LR-IPS, S-DPO, SFT"):
        chosen_runs(runs, {"method": ["MSL"]}, None)


def test_a_length_penalty_and_a_baseline(tmp_path: Path, capsys: Any) -> None:
    """A baseline stands beside every decoding, and never as if it had one."""
    also_decoded(write_run(tmp_path / "runs" / "sft", method="SFT", hit=0.3, seed=1, **SMALL), "full_lp1")
    write_run(tmp_path / "runs" / "msl", method="MSL", hit=0.2, seed=2, **SMALL)
    as_baseline(write_run(tmp_path / "sasrec", method="sasrec", hit=0.5, seed=3, full=False, **SMALL))

    def listed(*arguments: str) -> list[list[str]]:
        asked = ["leaderboard", str(tmp_path), "--format", "csv", *arguments]
        assert bearray(asked) == 0
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        return [[row["method"], row["decoding"]] for row in rows]

    numbered = ["sasrec", "all titles"]
    assert listed("--decoding", "full_lp1") == [numbered, ["SFT", "full_lp1"]]
    assert listed("--decoding", "full") == [numbered, ["SFT", "full"], ["MSL", "full"]]
    (board,) = boards(tmp_path)
    assert not board.notes  # all decoded in the same way; the baseline in none
    (folder,) = write_trec_of(tmp_path, tmp_path / "out", decoding="full_lp1")
    files = {row["file"]: row["decoding"] for row in csv.DictReader((folder / "runs.csv").open())}
    assert files == {"sasrec-sasrec-all-titles.run": "all titles", "sft-sft-full-lp1.run": "full_lp1"}


def test_variants_of_an_objective_say_in_what_they_differ(tmp_path: Path) -> None:
    """Also those that a sweep calls by names of their own, beside a search's trials."""
    for i, (label, lam) in enumerate((("BEAR", 0.5), ("LAM0", 2.0), ("MSL", 1.0))):
        write_run(tmp_path / label, method=label, seed=i, changes={"objective.lam": lam}, **SMALL)
    settings = {e.run.method: e.settings for e in boards(tmp_path)[0].entries}
    lam = "objective.lam"
    assert settings == {"BEAR": {lam: "0.5"}, "LAM0": {lam: "2"}, "MSL": {}}


def test_a_log_is_as_wide_as_it_must_be(tmp_path: Path, capsys: Any) -> None:
    """A run's name can be copied whole."""
    name = "/".join(["a-storage-of-a-part-of-the-paper"] * 5)
    write_run(tmp_path / name / "sft", method="SFT", **SMALL)
    assert bearray(["leaderboard", str(tmp_path)]) == 0
    assert f"{name}/sft" in capsys.readouterr().out


def test_a_narrow_terminal_has_fewer_columns(storages: tuple[Path, Path]) -> None:
    """Whole ones, the least telling left out first, and which run it is to the last."""
    table = cells(boards(storages[0])[0])

    def needed(header: list[str], rows: list[list[str]]) -> int:
        return sum(max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)) - 2

    whole = needed(*table)
    assert fitting(table, whole) == (table, [])
    assert fitting(table, whole - 1)[1] == ["HR@1"]
    for width in (160, 120, 100):
        (header, rows), left = fitting(table, width)
        assert needed(header, rows) <= width and left[0] == "HR@1"
        assert sorted([*header, *left]) == sorted(table[0])
    assert fitting(table, 10)[0][0] == ["#", "Method", "NDCG@10", "run"]
    long = table[0], [[*row[:-1], "storage/" * 20] for row in table[1]]
    assert fitting(long, 150)[1] == fitting((table[0], [[*row[:-1], "x" * 48] for row in table[1]]), 150)[1]


def test_a_run_counts_once(storages: tuple[Path, Path]) -> None:
    two = storages[1]
    again = gather([("two", two), ("runs", two / "runs")])
    assert sorted(r.id for r in again) == ["two/runs/msl", "two/runs/other-cases", "two/runs/other-data"]


def test_formats_hold_the_same_numbers(storages: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    places = [str(s) for s in storages]
    assert bearray(["leaderboard", *places]) == 0
    table = capsys.readouterr().out
    assert "40 test cases of 20 users" in table and "are not ranked together" in table
    assert bearray(["leaderboard", *places, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(board["entries"]) for board in found] == [5, 1, 1]
    best = found[0]["entries"][0]
    assert best["method"] == "BEAR" and best["settings"] == {"objective.lam": "0.5"}
    assert bearray(["leaderboard", *places, "--format", "csv", "--out", str(tmp_path / "board.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "board.csv").read_text())))
    assert len(rows) == 7 and rows[0]["table"] == "1"
    assert float(rows[0]["ndcg@10"]) == pytest.approx(best["scores"]["ndcg@10"]["mean"])
    assert {r["reason"] for r in rows} >= {"out of memory"} and rows[2]["seeds"] == "1, 2"
    shown = f"{best['scores']['ndcg@10']['mean']:.4f}"
    every = boards(*storages)
    assert shown in table and shown in markdown(every) and shown in latex(every)
    assert latex(every).count(r"\begin{tabular}") == 3 and json.loads(as_json(every)) == found


def test_hostile_names(tmp_path: Path, capsys: Any) -> None:
    write_run(tmp_path / "run", method="=cmd|'x'<b>[red]\x1b[31m", dataset="../../{x}", **SMALL)
    every = boards(tmp_path)
    assert "<b>" not in markdown(every) and r"\textless{}b" in latex(every)
    (folder,) = write_trec_of(tmp_path, tmp_path / "out")
    assert folder.parent == tmp_path / "out" and folder.name == "1-x"
    assert bearray(["leaderboard", str(tmp_path / "run")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_mistakes(storages: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    def fails(*arguments: str) -> str:
        assert bearray(["leaderboard", *arguments]) == 2
        return str(capsys.readouterr().err)

    one = str(storages[0])
    assert "no storage is given" in fails()
    assert "does not exist" in fails(str(tmp_path / "nothing"))
    assert "--out needs --format" in fails(one, "--out", str(tmp_path / "x"))
    assert "--method is 'x'; the runs have BEAR, DPO, SFT" in fails(one, "--method", "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is not empty; give a new folder" in fails(one, "--runs-out", str(tmp_path / "full"))


def write_trec_of(storage: Path, out: Path, **more: Any) -> list[Path]:
    for shard in storage.rglob("predictions*/*.parquet"):  # lists, which `write_run` leaves empty
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(shard)
        ranks, targets = table["rank"].to_pylist(), table["target"].to_pylist()
        lists = []
        for rank, target in zip(ranks, targets, strict=True):
            items = [1000 + k for k in range(10)]
            if math.isfinite(rank):
                items[int(rank)] = target
            lists.append(items)
        column = pa.array(lists, pa.list_(pa.int32()))
        pq.write_table(table.set_column(table.column_names.index("items"), "items", column), shard)
    return write_trec(boards(storage), out, **more)


def naive(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_other_tools_find_our_numbers(demo_dir: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    for seed, (name, hit) in enumerate((("sft", 0.3), ("msl", 0.8))):
        write_run_on(storage / name, demo_dir, method=name.upper(), hit=hit, seed=seed)
    (board,) = boards(storage)
    (folder,) = write_trec([board], tmp_path / "out")
    index = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    cases = list(csv.DictReader((folder / "cases.csv").read_text().splitlines()))
    qrels = naive(folder / "qrels.txt")
    assert [q for q, *_ in qrels] == [c["query"] for c in cases] and len(
        {q for q, *_ in qrels}
    ) == board.cases
    assert all(c["query"] == f"q{c['row']}-u{c['user_id']}" for c in cases)
    wanted = {q: item for q, _, item, _ in qrels}
    assert [row["run"] for row in index] == ["msl", "sft"]
    for entry, row in zip(board.entries, index, strict=True):
        lines = naive(folder / row["file"])
        assert {line[5] for line in lines} == {row["tag"]}
        found = dict.fromkeys(wanted, 0.0)
        before: dict[str, float] = {}
        for query, q0, item, place, score, _ in lines:
            assert q0 == "Q0" and float(score) < before.get(query, math.inf)
            before[query] = float(score)
            if item == wanted[query]:
                found[query] += 1 / math.log2(int(place) + 1)
        assert np.mean(list(found.values())) == pytest.approx(entry.scores["ndcg@10"].mean)
        theirs = ir_measures.calc_aggregate(
            [ir_measures.nDCG @ 10, ir_measures.nDCG @ 5, ir_measures.Success @ 1, ir_measures.Success @ 10],
            list(ir_measures.read_trec_qrels(str(folder / "qrels.txt"))),
            list(ir_measures.read_trec_run(str(folder / row["file"]))),
        )
        names = {"nDCG@10": "ndcg@10", "nDCG@5": "ndcg@5", "Success@1": "hr@1", "Success@10": "hr@10"}
        for measure, value in theirs.items():
            assert value == pytest.approx(entry.scores[names[str(measure)]].mean)


def test_an_item_that_shares_the_targets_title_is_relevant(tmp_path: Path) -> None:
    """The list of one run holds the item that stands for the title; the other run misses."""
    for name, hit in (("a", 0.0), ("b", 1.0)):
        write_run(tmp_path / name, method=name, hit=hit, seed=3, full=False, **SMALL)
    (folder,) = write_trec_of(tmp_path, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in (tmp_path / "b" / "predictions").glob("*.parquet"):
        table = pq.read_table(shard)
        lists = table["items"].to_pylist()
        lists[0][int(table["rank"][0].as_py())] = 555
        column = pa.array(lists, pa.list_(pa.int32()))
        pq.write_table(table.set_column(table.column_names.index("items"), "items", column), shard)
    (folder,) = write_trec(boards(tmp_path), tmp_path / "out")
    assert naive(folder / "qrels.txt")[0][2] == "555"


def test_the_export_by_decoding_and_by_table(storages: tuple[Path, Path], tmp_path: Path) -> None:
    for storage in storages:
        shutil.copytree(storage, tmp_path / storage.name)
    one, two = (tmp_path / s.name for s in storages)
    (folder,) = write_trec_of(one, tmp_path / "one-out")
    names = {"sft-sft-1", "sft-sft-2", "bear-bear-0"}
    assert {f.name for f in folder.glob("*.run")} == {f"{n}-{d}.run" for n in names for d in ("trie", "full")}
    folders = write_trec_of(two, tmp_path / "two-out", decoding="full")
    assert [[f.name for f in folder.glob("*.run")] for folder in folders] == [
        ["sft-other-cases-full.run"], ["msl-msl-full.run"], ["sft-other-data-full.run"],
    ]  # fmt: skip
    assert len(collect(one).runs) == 5


def test_predictions_without_lists(storages: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the target has rank \d, but the list has 0 items"):
        write_trec(boards(storages[0]), tmp_path / "out")
