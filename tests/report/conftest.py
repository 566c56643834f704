from pathlib import Path

import pytest

from bearray.report import write_report
from tests.report.storage import write_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with SFT, MSL and a search for BEAR. Read only."""
    storage = tmp_path_factory.mktemp("storage") / "demo sweep"
    storage.mkdir()
    write_sweep(storage)
    return storage


@pytest.fixture(scope="session")
def report(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report on `sweep`. Read only."""
    return write_report(sweep, tmp_path_factory.mktemp("report")).parent
