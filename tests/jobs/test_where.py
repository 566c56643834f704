"""Where a job's results are: what its command says, else what it printed."""

from __future__ import annotations

import pytest

from bearray.errors import ConfigError
from bearray.jobs.where import lost, storage_of

LOG = (
    "12:00:01 new sweep in /home/ubuntu/results/my demo\n"
    "12:30:00 sweep finished in 3 minutes; storage: /r/demo\n"
)


@pytest.mark.parametrize(
    ("entrypoint", "log", "expected"),
    [
        ("python sweeps/book.py --storage s3://bucket/book", "", "s3://bucket/book"),
        ("python sweeps/book.py --storage=/shared/book --smoke", LOG, "/shared/book"),
        ("python sweeps/book.py --storage '/shared/my book'", "", "/shared/my book"),
        ("python a.py --storage /one --storage /two", "", "/two"),  # as the command itself reads it
        ("python sweeps/demo.py", LOG.splitlines()[0], "/home/ubuntu/results/my demo"),
        ("python sweeps/demo.py --storage results/demo", LOG, "/r/demo"),
        ("python sweeps/demo.py 'unfinished", LOG, "/r/demo"),
        ("python sweeps/demo.py", "12:00:01 continuing the sweep in gs://b/x\n", "gs://b/x"),
    ],
)
def test_found(entrypoint: str, log: str, expected: str) -> None:
    assert storage_of(entrypoint, log) == expected


@pytest.mark.parametrize("entrypoint", ["python sweeps/demo.py", "python x.py --storage rel", "x --storage"])
def test_not_yet_known(entrypoint: str) -> None:
    with pytest.raises(ConfigError, match="give --storage"):
        storage_of(entrypoint, "starting\n")


def test_the_copy_of_the_folder_that_ray_deletes() -> None:
    session = "/tmp/ray/session_2026-01-01/runtime_resources/working_dir_files/_ray_pkg_0123/results/demo"
    assert lost(session) and not lost("/home/ubuntu/results/demo")
