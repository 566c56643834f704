"""Two sweeps on one storage: the second is refused, by name, and the first notices nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.sweep_process import Gates, starting

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_second_sweep_is_refused(
    demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find, capsys: pytest.CaptureFixture[str]
) -> None:
    from bearray.commands.bench import objectives

    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("step 4 of run 0")
        first = start()
        first.until("step 4 of run 0")
        before = files(storage)

        second = start()
        assert second.wait() == 2, second.output
        (line,) = second.output.strip().splitlines()
        assert line.startswith(f"error: {storage} is in use by a sweep on ")
        assert f"process {first.process.pid}, since 20" in line
        # So is a benchmark, whose times would be disturbed.
        one = [*arguments, "--local", "--rounds", "1", "--users", "2", "--decoders", "beam"]
        one[one.index("--base-model") + 1 :] = [str(micro_base), *one[one.index("--base-model") + 2 :]]
        assert objectives(one) == 2
        assert f"{storage} is in use by a sweep" in capsys.readouterr().err
        assert files(storage) == before

        gates.open()
        assert first.wait() == 0, first.output

    assert_as_undisturbed(str(storage), undisturbed)
    assert_steps(gates)
    assert not list((storage / ".lock").iterdir())


def files(storage: Path) -> set[str]:
    """All files but those that the sweep under way may write meanwhile: its heartbeat and Tune's record."""
    return {
        str(f) for f in storage.rglob("*") if f.is_file() and "tune" not in f.parts and ".tmp" not in f.name
    }
