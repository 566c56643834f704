from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from bearray.data import SPLITS, open_dataset
from bearray.data.demo import GENRES, make_demo
from bearray.data.prompts import DOMAINS, template_for
from bearray.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "demo")


def test_size_and_speed(tmp_path: Path) -> None:
    start = time.perf_counter()
    data = open_dataset(make_demo(tmp_path / "demo"))
    assert time.perf_counter() - start < 20
    users = {user for split in SPLITS for user in data.split(split)["user_id"]}
    assert 540 <= len(data.items) <= 660
    assert 3_900 <= len(users) <= 4_000
    assert not any(data.notes.values())


def test_deterministic_by_seed(demo: Path, tmp_path: Path) -> None:
    again, other = make_demo(tmp_path / "again"), make_demo(tmp_path / "other", seed=1)
    for file in sorted(demo.iterdir()):
        assert file.read_bytes() == (again / file.name).read_bytes()
    assert open_dataset(demo).content_hash != open_dataset(other).content_hash


def test_titles(demo: Path) -> None:
    titles = open_dataset(demo).items["title"]
    assert titles.is_unique
    assert titles.str.split().str.len().between(3, 8).all()
    assert titles.str.fullmatch(r"[A-Za-z ]+: [A-Za-z ]+").all()
    words = {word for genre in GENRES.values() for part in genre for word in part.split()}
    assert titles.str.split().str[0].isin(words).all()


def test_franchises_share_prefixes(demo: Path) -> None:
    stems = Counter(open_dataset(demo).items["title"].str.split().str[:2].str.join(" "))
    assert sum(n for n in stems.values() if n >= 3) > 0.7 * sum(stems.values())


def test_popularity_is_skewed_and_users_stay_near(demo: Path) -> None:
    data = open_dataset(demo)
    targets = Counter(data.train["item_ids"].str[-1])
    top = sum(n for _, n in targets.most_common(len(data.items) // 10))
    assert 0.25 < top / len(data.train) < 0.9
    stem = {
        i: " ".join(t.split()[:2]) for i, t in zip(data.items["item_id"], data.items["title"], strict=True)
    }
    near = [stem[ids[-2]].rstrip(":") == stem[ids[-1]].rstrip(":") for ids in data.train["item_ids"]]
    assert 0.4 < sum(near) / len(near) < 0.8


def test_no_film_is_seen_twice(demo: Path) -> None:
    assert all(len(set(ids)) == len(ids) for ids in open_dataset(demo).train["item_ids"])


def test_small_and_large_worlds(tmp_path: Path) -> None:
    open_dataset(make_demo(tmp_path / "small", items=50, users=60))
    titles = open_dataset(make_demo(tmp_path / "large", items=3_000, users=3_000)).items["title"]
    assert titles.is_unique


@pytest.mark.parametrize("wrong", [{"items": 5}, {"users": 5}, {"seed": -1}])
def test_wrong_arguments(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"demo {next(iter(wrong))} is"):
        make_demo(tmp_path / "demo", **wrong)
    assert not any(tmp_path.iterdir())


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    make_demo(tmp_path, items=50, users=60, force=True)
    with pytest.raises(DataError, match="--force"):
        make_demo(tmp_path, items=50, users=60)


def test_prompts_speak_of_films(demo: Path) -> None:
    assert template_for(demo.name) == DOMAINS["demo"]
