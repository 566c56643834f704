"""What `ray job submit --working-dir .` packs, by Ray's own code: the project, nothing large or secret."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZipFile

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from tests.cluster.files import ROOT

LEFT_OUT = (
    ".venv/lib/python3.12/site-packages/torch/lib/libtorch.so",
    ".git/objects/ab/cdef",
    "data/book/items.parquet",
    "results/book/runs/bear-1/checkpoints/0/adapter.safetensors",
    "tests/test_trie.py",
    "docs/results.md",
    "benchmarks/results/decoding-cpu.json",
    ".pytest_cache/README.md",
    ".mypy_cache/3.11/x.json",
    "bearray.egg-info/PKG-INFO",
    "bearray/__pycache__/trie.cpython-312.pyc",
    ".env",
    ".env.local",
    "cluster/secrets.env",
    "cluster/key.pem",
)
TAKEN = (
    "bearray/trie.py",
    "bearray/data/write.py",
    "bearray/report/results.py",
    "sweeps/book.py",
    "pyproject.toml",
)


def packed(folder: Path, target: Path, *, gitignore: bool = True) -> set[str]:
    """Names in the package that Ray would upload."""
    create_package(
        str(folder), target, include_gitignore=gitignore, excludes=get_runtime_env_default_excludes()
    )
    with ZipFile(target) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


def made_up(folder: Path) -> Path:
    for name in (*LEFT_OUT, *TAKEN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_data_results_and_environments_stay_here(tmp_path: Path) -> None:
    names = packed(made_up(tmp_path / "project"), tmp_path / "package.zip")
    assert names == {*TAKEN, ".gitignore", ".rayignore"}


def test_also_without_gitignore(tmp_path: Path) -> None:
    """Ray can be told not to read it (RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1)."""
    names = packed(made_up(tmp_path / "project"), tmp_path / "package.zip", gitignore=False)
    assert names == {*TAKEN, ".gitignore", ".rayignore"}


def test_it_is_rayignore_that_does_it(tmp_path: Path) -> None:
    project = made_up(tmp_path / "project")
    (project / ".rayignore").unlink()
    assert {"docs/results.md", ".env"} <= packed(project, tmp_path / "package.zip")


def test_this_project_packs_small_and_whole(tmp_path: Path) -> None:
    """Ray's limit is 512 MiB, and a job's start waits for the upload."""
    names = packed(ROOT, tmp_path / "package.zip")
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert {"bearray", "sweeps", "cluster"} <= folders
    assert not {"data", "results", "docs", "tests", "benchmarks", ".venv", ".git"} & folders
    ours = [name for name in names if name.startswith(("bearray/", "sweeps/", "cluster/"))]
    assert sum((ROOT / name).stat().st_size for name in ours) < 5 * 2**20
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "bearray").rglob("*.py")} <= names
