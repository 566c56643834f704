"""Recommendations against the decoders they come from."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.batching import left_pad
from bearray.decoding import TitleFilter, constrained_beam_search, exact_top_k
from bearray.decoding.target import score_titles
from bearray.errors import ConfigError, DataError, MissingFileError, ResumeError
from bearray.pruning import measure
from bearray.runs import Storage
from bearray.serving import Recommender, open_recommender
from bearray.serving.recommender import plain
from bearray.task import Case
from bearray.trained import load_trained, open_run


def prompts(recommender: Recommender, histories: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    return left_pad(recommender.backbone.encode_prompts(histories), recommender.backbone.pad_token_id)


def with_width(recommender: Recommender, width: int, **more: Any) -> Recommender:
    decoding = replace(recommender.decoding, beam_width=width, **more)
    return Recommender(recommender.model, recommender.catalog, recommender.backbone, decoding)


def cut_gap(recommender: Recommender, history: list[str], title: int) -> float:
    """Nats that a title's prefix was below the bar where beam search dropped it."""
    (prompt,) = recommender.backbone.encode_prompts([history])
    case = Case(row=0, user=0, prompt=prompt, target_item=0, target_title=title, warm=True)
    frame = measure(
        recommender.model,
        [case],
        recommender.catalog.trie,
        recommender.decoding,
        widths=(),
        node_budget=None,
        pad_token_id=recommender.backbone.pad_token_id,
        device="cpu",
    )
    return float(frame["cut_gap"][0])


@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize("exclude", [False, True])
def test_lists_are_those_of_beam_search_with_the_unmerged_adapter(
    run_folder: Path, recommender: Recommender, histories: list[list[str]], normalize: Any, exclude: bool
) -> None:
    run = open_run(Storage(str(run_folder)))
    model = load_trained(run.config.model, run.checkpoint, "cpu", merge=False)
    known = [recommender.titles.history(h).title_ids for h in histories]
    asked = (model, *prompts(recommender, histories), recommender.catalog.trie)
    deny = TitleFilter(deny=known) if exclude else None
    wanted = constrained_beam_search(*asked, beam_width=4, normalize=normalize, titles=deny)
    found = recommender.recommend(histories, normalize=normalize, exclude_history=exclude)
    for user, row in enumerate(found):
        assert row.history == tuple(histories[user])
        ids = [i for i in wanted.title_ids[user].tolist() if i >= 0]
        assert [item.title for item in row.items] == [recommender.catalog.titles[i] for i in ids]
        assert [list(item.item_ids) for item in row.items] == [
            recommender.catalog.items_of_title[i] for i in ids
        ]
        scores = [item.score for item in row.items]
        assert scores == pytest.approx(wanted.scores[user, : len(ids)].tolist(), rel=1e-4)
        assert all(item.margin >= 0 for item in row.items)
        if exclude:
            assert not set(known[user]) & set(ids)


def test_k_cuts_a_list_and_widens_a_beam(recommender: Recommender, histories: list[list[str]]) -> None:
    four = recommender.recommend(histories)
    two = recommender.recommend(histories, k=2)
    for short, long in zip(two, four, strict=True):
        assert [i.title for i in short.items] == [i.title for i in long.items[:2]]
        assert [i.margin for i in short.items] == pytest.approx([i.margin for i in long.items[:2]])
        assert short.proven or not long.proven
    wide = with_width(recommender, 7).recommend(histories)
    assert [[i.title for i in row.items] for row in recommender.recommend(histories, k=7)] == [
        [i.title for i in row.items] for row in wide
    ]


def test_a_proven_list_is_the_exact_one_and_both_kinds_occur(
    recommender: Recommender, histories: list[list[str]]
) -> None:
    asked = (recommender.model, *prompts(recommender, histories), recommender.catalog.trie)
    seen = set()
    for width in (1, 2, 4, 30):
        narrow = with_width(recommender, width)
        for k in {1, min(width, 4)}:
            true = exact_top_k(*asked, k=k)
            for user, row in enumerate(narrow.recommend(histories, k=k)):
                seen.add(row.proven)
                if row.proven:
                    ids = true.title_ids[user].tolist()
                    assert [i.title for i in row.items] == [recommender.catalog.titles[i] for i in ids]
    assert seen == {True, False}


def test_a_length_penalty_is_never_proven(recommender: Recommender, histories: list[list[str]]) -> None:
    found = with_width(recommender, 30, length_penalty=1.0).recommend(histories, k=4)
    assert not any(row.proven for row in found)


@pytest.mark.parametrize("exclude", [False, True])
def test_exact_search_says_which_titles_a_beam_would_have_lost(
    recommender: Recommender, histories: list[list[str]], exclude: bool
) -> None:
    """As the pruning analysis says of the same titles."""
    narrow, lost = with_width(recommender, 2), 0
    found = narrow.recommend(histories, k=2, exact=True, exclude_history=exclude)
    beams = narrow.recommend(histories, k=2, exclude_history=exclude)
    trie, titles = recommender.catalog.trie, recommender.catalog.titles
    for user, (row, beam) in enumerate(zip(found, beams, strict=True)):
        assert row.proven
        kept = {item.title: item.margin for item in beam.items}
        for item in row.items:
            if item.title in kept:
                assert item.margin == pytest.approx(kept[item.title], abs=1e-5)
                continue
            lost += 1
            assert -math.inf < item.margin < 0
            assert item.score > beam.items[-1].score
            title = titles.index(item.title)
            if not exclude:
                assert item.margin == pytest.approx(-cut_gap(narrow, histories[user], title), abs=1e-4)
            known = recommender.titles.history(histories[user]).title_ids
            allowed = TitleFilter(deny=[known]) if exclude else None
            own = score_titles(
                recommender.model, *prompts(recommender, [histories[user]]), trie, [title], allowed=allowed
            )
            assert float(own.log_prob) == pytest.approx(item.score, rel=1e-4)
    assert lost


def test_a_budget_may_leave_a_list_unproven(recommender: Recommender, histories: list[list[str]]) -> None:
    found = recommender.recommend(histories, exact=True, node_budget=1)
    assert not all(row.proven for row in found)


def test_histories_do_not_disturb_each_other(recommender: Recommender, histories: list[list[str]]) -> None:
    together = [plain(row) for row in recommender.recommend(histories)]
    for one, history in zip(together, histories, strict=True):
        (alone,) = recommender.recommend([history])
        assert [r["title"] for r in one["recommendations"]] == [item.title for item in alone.items]
        assert [r["score"] for r in one["recommendations"]] == pytest.approx(
            [item.score for item in alone.items], rel=1e-4
        )
    assert recommender.recommend([]) == []


def test_unknown_titles(recommender: Recommender, histories: list[list[str]]) -> None:
    strange = [*histories[0], "A Title of My Own"]
    with pytest.raises(DataError, match="'A Title of My Own' is not in the catalogue"):
        recommender.recommend([strange])
    (found,) = recommender.recommend([strange], unknown_titles=True)
    assert found.unknown == ("A Title of My Own",) and len(found.items) == 4
    (known,) = recommender.recommend([histories[0]])
    assert [i.score for i in found.items] != pytest.approx([i.score for i in known.items])
    assert plain(found)["unknown_titles"] == ["A Title of My Own"]


@pytest.mark.parametrize("k", [0, -1, 10_000])
def test_a_k_that_cannot_work(recommender: Recommender, histories: list[list[str]], k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; it must be between 1 and"):
        recommender.recommend(histories, k=k)


def test_a_margin_without_a_bar_is_null_in_json(recommender: Recommender) -> None:
    (found,) = with_width(recommender, len(recommender.catalog)).recommend([recommender.catalog.titles[:1]])
    assert found.proven and any(math.isinf(item.margin) for item in found.items)
    assert None in [item["margin"] for item in plain(found)["recommendations"]]


def test_a_run_is_opened_where_its_data_and_model_were_moved(
    run_folder: Path, demo_dir: Path, micro_base: Path, tmp_path: Path, recommender: Recommender
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    text = (tmp_path / "run" / "config.json").read_text()
    text = text.replace(str(demo_dir), "/gone/data").replace(str(micro_base), "/gone/model")
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(MissingFileError, match="/gone/data does not exist"):
        open_recommender(str(tmp_path / "run"))
    moved = open_recommender(
        str(tmp_path / "run"), data_dir=str(demo_dir), base_model=str(micro_base), device="cpu"
    )
    history = [recommender.catalog.titles[:2]]
    assert moved.recommend(history) == recommender.recommend(history)
    assert moved.about["run"] == "run" and moved.about["titles"] == len(recommender.catalog)
    assert "stand-in" in moved.about["notes"][0]


def test_what_is_no_run_is_named(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist; give a run folder or an export"):
        open_recommender(str(tmp_path / "none"))
    storage = run_folder.parent.parent
    with pytest.raises(MissingFileError, match=r"no export .*a sweep's storage, which holds runs/bear-1234"):
        open_recommender(str(storage))
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(ResumeError, match="is not finished"):
        open_recommender(str(tmp_path / "run"))
