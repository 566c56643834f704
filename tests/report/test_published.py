from pathlib import Path

import pytest

from bearray.report import build_tables, collect
from bearray.report.published import beside, published
from tests.report.storage import write_run

DATASETS = ("office", "book", "toy", "clothing")


def test_improvements_average_to_the_quoted_12_50_percent() -> None:
    cells = [x for d in DATASETS for x in published()["tables"][0]["improvement_percent"][d]]
    assert len(cells) == 16
    assert round(sum(cells) / 16, 2) == 12.50


def test_every_improvement_follows_from_the_cells() -> None:
    checked = 0
    for table in published()["tables"]:
        *others, bear = table["rows"]
        assert bear["method"] == "+BEAR"
        for dataset in DATASETS:
            for i, stated in enumerate(table["improvement_percent"][dataset]):
                best = max(r["values"][dataset][i] for r in others)
                assert (bear["values"][dataset][i] / best - 1) * 100 == pytest.approx(stated, abs=0.0051)
                checked += 1
    assert checked == 5 * 16


def test_hit_ratios_are_counts_over_the_published_test_cases() -> None:
    """HR is k / n to the four digits printed: a check of the LLM rows that no other cell takes part in."""
    data = published()
    for row in data["tables"][0]["rows"]:
        if not row["method"].startswith(("BIGRec", "+")):
            continue
        n = data["test_cases"]["office"]
        for cell in row["values"]["office"][2:]:
            assert round(round(cell * n / 1e4) / n * 1e4) == cell, (row["method"], cell)


def test_tables_are_complete() -> None:
    shape = [(t["table"], t["backbone"], t["base_model"], len(t["rows"])) for t in published()["tables"]]
    assert shape == [
        ("2", "bigrec", "llama-3.2-3b", 15),
        ("3", "llara", "llama-3.2-3b", 3),
        ("3", "allmrec", "llama-3.2-3b", 3),
        ("4", "bigrec", "llama-3.2-1b", 3),
        ("4", "bigrec", "llama-3-8b", 3),
    ]
    for table in published()["tables"]:
        for row in table["rows"]:
            assert [len(row["values"][d]) for d in DATASETS] == [4, 4, 4, 4]
            for n5, n10, h5, h10 in row["values"].values():
                assert n5 <= n10 and h5 <= h10 and n5 <= h5 and n10 <= h10


def test_the_data_sets_of_table_1_are_consistent() -> None:
    data = published()
    assert set(data["data"]) == set(data["test_cases"]) == set(DATASETS)
    for own in data["data"].values():
        assert own["density"] == pytest.approx(own["interactions"] / own["users"] / own["items"], abs=5e-7)
        assert own["distinct_titles"] <= own["items"]


def test_hit_ratios_of_table_5_are_counts_over_500_cases() -> None:
    sample = published()["sample"]
    assert [row["ours"] for row in sample["rows"]] == ["sft", "bear", "beam_simulation"]
    for row in sample["rows"]:
        for ndcg, hr in row["values"].values():
            assert ndcg <= hr and hr * sample["test_cases"] % 10_000 == 0


def test_the_text_gives_the_mean_improvement_of_table_2() -> None:
    text = published()["text"]
    cells = [x for d in DATASETS for x in published()["tables"][0]["improvement_percent"][d]]
    assert text["mean_improvement"] == pytest.approx(sum(cells) / 1600, abs=5e-5)
    assert set(text["pruned_share"]) == {"book", "toy"} and min(text["pruned_share"].values()) > 0.8


@pytest.mark.parametrize(
    ("dataset", "base_model", "number", "sft_hr10"),
    [
        ("office", "llama-3.2-3b", "2", 0.0587),
        ("Book", "meta-llama/Llama-3.2-3B", "2", 0.0228),
        ("toy", "llama-3.2-1b", "4", 0.0296),
        ("clothing", "meta-llama/Meta-Llama-3-8B", "4", 0.0180),
    ],
)
def test_published_rows_stand_beside_ours_where_data_and_model_match(
    tmp_path: Path, dataset: str, base_model: str, number: str, sft_hr10: float
) -> None:
    write_run(tmp_path / "a", method="SFT", dataset=dataset, base_model=base_model, kind="hub", n=20)
    write_run(tmp_path / "b", method="BEAR", dataset=dataset, base_model=base_model, kind="hub", n=20)
    found = beside(build_tables(collect(tmp_path).runs)[0])
    assert found.table == number
    sft, bear = found.rows[-3 if number == "4" else 5], found.rows[-1]
    assert sft.method == "BIGRec" and sft.values["hr@10"] == pytest.approx(sft_hr10)
    assert sft.ours is not None and sft.ours.label == "SFT"
    assert bear.ours is not None and bear.ours.label == "BEAR"
    assert "ours 20: the two are not on the same cases" in found.sentence
    assert "Our length penalty is 0." in found.sentence


@pytest.mark.parametrize(
    ("dataset", "base_model", "kind", "reason"),
    [
        ("steam", "llama-3.2-3b", "hub", "the paper has no data set steam"),
        ("office", "local:tiny", "local stand-in", "not local:tiny (a local stand-in"),
        ("office", "llama-3.2-3b-instruct", "hub", "not llama-3.2-3b-instruct"),
        ("office", "/x/llama-3.2-3b", "local stand-in", "a local stand-in"),
    ],
)
def test_otherwise_a_sentence_says_why_they_are_not_comparable(
    tmp_path: Path, dataset: str, base_model: str, kind: str, reason: str
) -> None:
    write_run(tmp_path / "a", method="SFT", dataset=dataset, base_model=base_model, kind=kind, n=20)
    found = beside(build_tables(collect(tmp_path).runs)[0])
    assert found.rows == () and found.table is None
    assert "not comparable" in found.sentence and reason in found.sentence
