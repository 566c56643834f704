"""Reports on storage that is addressed by a URI."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from bearray.report.anywhere import report_on
from bearray.report.write import write_report
from bearray.runs import Storage


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that answers to bucket://, through a file system that is not the local one to `Storage`."""
    root = tmp_path / "bucket"
    root.mkdir()
    original = Storage._open

    def opened(self: Storage, name: str) -> tuple[pafs.FileSystem, str]:
        if not self.root.startswith("bucket://"):
            return original(self, name)
        path = self.root.removeprefix("bucket://")
        return pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem()), f"{path}/{name}" if name else path

    monkeypatch.setattr(Storage, "_open", opened)
    return root


def test_a_report_on_a_bucket_is_the_report_on_its_copy(bucket: Path, sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep, bucket / "team" / sweep.name)
    (bucket / "team" / sweep.name / "tune").mkdir(exist_ok=True)
    (bucket / "team" / sweep.name / "tune" / "large.bin").write_bytes(b"not to be copied")
    where = report_on(f"bucket://team/{sweep.name}")
    assert where == f"bucket://team/{sweep.name}/report/index.html"
    local = write_report(sweep, tmp_path / "local")
    sent = bucket / "team" / sweep.name / "report"
    assert (sent / "index.html").read_bytes() == local.read_bytes()
    names = [sorted(str(f.relative_to(d)) for f in d.rglob("*") if f.is_file()) for d in (sent, local.parent)]
    assert names[0] == names[1]


def test_a_bucket_that_is_not_there(bucket: Path) -> None:
    with pytest.raises(FileNotFoundError, match="bucket://nothing"):
        report_on("bucket://nothing")
