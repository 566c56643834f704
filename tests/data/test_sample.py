"""A data set of some users: all of their windows, the whole catalogue, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearray.data import open_dataset
from bearray.data.dataset import SPLITS
from bearray.data.sample import sample_users
from bearray.errors import ConfigError


def test_all_windows_of_some_users(demo_dir: Path, tmp_path: Path) -> None:
    whole = open_dataset(demo_dir)
    found = open_dataset(sample_users(whole, 60, tmp_path / "demo-s", seed=1))
    users = {int(u) for split in SPLITS for u in found.split(split)["user_id"]}
    assert 0 < len(users) <= 60
    assert found.items["title"].tolist() == whole.items["title"].tolist()
    for split in SPLITS:
        own, all_ = found.split(split), whole.split(split)
        wanted = all_[all_["user_id"].isin(users)]
        assert own["user_id"].tolist() == wanted["user_id"].tolist()
        assert [list(x) for x in own["item_ids"]] == [list(x) for x in wanted["item_ids"]]
        assert own["timestamp"].tolist() == wanted["timestamp"].tolist()


def test_the_draw_depends_on_the_seed_alone(demo_dir: Path, tmp_path: Path) -> None:
    whole = open_dataset(demo_dir)
    hashes = [
        open_dataset(sample_users(whole, 60, tmp_path / str(i), seed=seed)).content_hash
        for i, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_more_users_than_there_are_is_everybody(demo_dir: Path, tmp_path: Path) -> None:
    whole = open_dataset(demo_dir)
    assert open_dataset(sample_users(whole, 10**6, tmp_path / "all")).content_hash == whole.content_hash


def test_no_user_at_all(demo_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="users is 0"):
        sample_users(open_dataset(demo_dir), 0, tmp_path / "none")
