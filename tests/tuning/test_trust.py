"""Ray Tune's pickles are restored only where nobody else could have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bearray.errors import StorageError
from bearray.tuning import trust
from bearray.tuning.trust import check_own


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "tune" / "methods"
    (folder / "trial").mkdir(parents=True)
    for name in ("tuner.pkl", "trial/params.pkl", "experiment_state-1.json"):
        (folder / name).write_bytes(b"x")
    for entry in (folder, *folder.rglob("*")):
        entry.chmod(0o755 if entry.is_dir() else 0o644)
    return folder


def test_ones_own_is_restored(experiment: Path) -> None:
    (experiment / "trial" / "link").symlink_to("params.pkl")  # a link's own mode says nothing
    before = sorted(experiment.rglob("*"))
    check_own(str(experiment))
    assert sorted(experiment.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "tuner.pkl", "trial", "trial/params.pkl", "experiment_state-1.json"])
def test_what_everybody_may_write_is_not(experiment: Path, name: str) -> None:
    entry = experiment / name
    entry.chmod(entry.stat().st_mode | 0o002)
    with pytest.raises(StorageError, match="everybody may write to it") as caught:
        check_own(str(experiment))
    assert str(entry) in str(caught.value) and "chmod -R o-w" in str(caught.value)


def test_what_belongs_to_somebody_else_is_not(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files stay and the user changes, since only root could give them away."""
    monkeypatch.setattr(trust, "_owner_of_new_files", lambda folder: 4711)
    mine = os.lstat(experiment).st_uid
    if mine == 0:  # root's files are trusted: give one away
        os.chown(experiment / "tuner.pkl", 4712, -1)
    with pytest.raises(StorageError, match="it belongs to user"):
        check_own(str(experiment))


def test_buckets_have_their_own_rules() -> None:
    check_own("s3://bucket/tune/methods")
