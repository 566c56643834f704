"""Locks of builds: an old one is deleted, one of a running build is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bearray.training.build_lock import STALE_SECONDS, remove_stale_locks

NOW = 1_800_000_000.0


def lock(root: Path, extension: str, age: float) -> Path:
    folder = root / extension
    folder.mkdir(parents=True)
    (folder / "build.ninja").write_text("rule compile")
    path = folder / "lock"
    path.touch()
    for file in folder.iterdir():
        os.utime(file, (NOW - age, NOW - age))
    return path


@pytest.mark.parametrize("place", ["shm_comm", "py311_cpu/shm_comm"])
def test_only_what_is_too_old_for_a_build_goes(place: str, tmp_path: Path) -> None:
    old = lock(tmp_path, place, STALE_SECONDS + 1)
    young = lock(tmp_path, f"{place}_2", STALE_SECONDS - 1)
    assert remove_stale_locks(tmp_path, now=NOW) == [old]
    assert not old.exists() and young.exists() and (old.parent / "build.ninja").exists()
    assert remove_stale_locks(tmp_path, now=NOW) == []


def test_the_folder_is_pytorchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    old = lock(tmp_path, "shm_comm", STALE_SECONDS * 2)
    assert remove_stale_locks(now=NOW) == [old]


def test_no_folder_yet(tmp_path: Path) -> None:
    assert remove_stale_locks(tmp_path / "nothing") == []
