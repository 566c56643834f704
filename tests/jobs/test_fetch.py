"""Results are brought whole, without checkpoints unless asked, and never into another sweep's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bearray import cli
from bearray.errors import BearrayError, ConfigError, DataError, MissingFileError, ResourceError, ResumeError
from bearray.jobs import fetch as fetching
from bearray.jobs.fetch import fetch
from tests.cluster.files import CLUSTER
from tests.jobs.stored import PART, make, make_paper


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return make(tmp_path / "there" / "demo")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_but_checkpoints(storage: Path, tmp_path: Path) -> None:
    target = tmp_path / "here"
    fetch(str(storage), target, cluster_file=None, checkpoints=False)
    assert files(storage) - files(target) == {"runs/sft-1/checkpoints/2/adapter/adapter_model.safetensors"}
    fetch(f"file://{storage}", target, cluster_file=None, checkpoints=True)
    assert files(target) == files(storage)


def test_again_brings_what_is_new(storage: Path, tmp_path: Path) -> None:
    for text in ("{}", '{"status": "failed"}'):
        (storage / "runs" / "bear-1" / "result.json").write_text(text, encoding="utf-8")
        fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)
        assert (tmp_path / "here" / "runs" / "bear-1" / "result.json").read_text(encoding="utf-8") == text


def test_two_sweeps_do_not_mix(storage: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    content = json.loads((other / "sweep.json").read_bytes()) | {"data_hash": "4567"}
    (other / "sweep.json").write_text(json.dumps(content), encoding="utf-8")
    fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)
    (other / "runs" / "new").write_text("", encoding="utf-8")
    with pytest.raises(ResumeError, match=r"another sweep.*--to"):
        fetch(str(other), tmp_path / "here", cluster_file=None, checkpoints=False)
    assert "runs/new" not in files(tmp_path / "here")


def test_over_ssh_checkpoints_are_excluded_by_rsync(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest, with a real rsync and a real ssh server, is tests/cluster/test_over_ssh.py."""
    asked: list[tuple[list[str], str]] = []

    def rsync(config: dict[str, Any], source: str, target: str) -> None:
        assert target.endswith("/")
        asked.append((config["rsync_exclude"], source))
        (Path(target) / "sweep.json").write_bytes((storage / "sweep.json").read_bytes())

    monkeypatch.setattr(fetching, "_rsync", rsync)
    for checkpoints in (False, True):
        fetch("/r/demo/", tmp_path / "here", cluster_file=CLUSTER / "local.yaml", checkpoints=checkpoints)
    assert asked == [
        (["*/"], "/r/demo/"), ([".lock/", "checkpoints/", "*.tmp"], "/r/demo/"),
        (["*/"], "/r/demo/"), ([".lock/", "*.tmp"], "/r/demo/"),
    ]  # fmt: skip


def test_a_head_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rsync(config: dict[str, Any], source: str, target: str) -> None:
        raise RuntimeError("Head node of cluster not found!")

    monkeypatch.setattr(fetching, "_rsync", rsync)
    with pytest.raises(ResourceError, match=r"local\.yaml: Head node.*ray exec"):
        fetch("/r/demo", tmp_path, cluster_file=CLUSTER / "local.yaml", checkpoints=False)


def test_what_is_no_sweep_there_is_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        fetching, "_rsync", lambda config, source, target: asked.append(config["rsync_exclude"])
    )
    with pytest.raises(MissingFileError, match=r"/r/demo holds no sweep"):
        fetch("/r/demo", tmp_path / "here", cluster_file=CLUSTER / "local.yaml", checkpoints=False)
    assert asked == [["*/"]] and not (tmp_path / "here").exists()


def test_a_sweep_with_more_seeds_is_the_same(storage: Path, tmp_path: Path) -> None:
    fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)
    content = json.loads((storage / "sweep.json").read_bytes())
    content["sweep"]["seeds"] = [1, 2, 3]
    (storage / "sweep.json").write_text(json.dumps(content), encoding="utf-8")
    fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)
    assert json.loads((tmp_path / "here" / "sweep.json").read_bytes()) == content


def test_a_damaged_sweep_is_named(storage: Path, tmp_path: Path) -> None:
    fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)
    (tmp_path / "here" / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"here/sweep\.json"):
        fetch(str(storage), tmp_path / "here", cluster_file=None, checkpoints=False)


def test_all_of_a_paper(tmp_path: Path) -> None:
    paper, here = make_paper(tmp_path / "paper"), tmp_path / "here"
    assert fetch(str(paper), here, cluster_file=None, checkpoints=False).endswith("0 were here already")
    assert files(paper) - files(here) == {
        f"{PART}/runs/sft-1/checkpoints/2/adapter/adapter_model.safetensors"
    }
    assert {"paper.json", "paper/index.html", "demo/baselines/sasrec-1-abcdef/result.json"} <= files(here)


def test_papers_and_sweeps_do_not_mix(storage: Path, tmp_path: Path) -> None:
    def bring(source: Path, target: Path) -> None:
        fetch(str(source), target, cluster_file=None, checkpoints=False)

    paper, mine = make_paper(tmp_path / "paper"), tmp_path / "mine"
    bring(paper, mine)
    with pytest.raises(ResumeError, match=r"mine holds another sweep"):
        bring(storage, mine)
    bring(storage, tmp_path / "sweep")
    with pytest.raises(ResumeError, match=r"sweep holds another sweep"):
        bring(paper, tmp_path / "sweep")
    record = json.loads((paper / "paper.json").read_bytes())
    (paper / "paper.json").write_text(json.dumps(record | {"config": {"table": [2]}}), encoding="utf-8")
    bring(paper, mine)  # what is asked for may change
    part = paper / PART / "sweep.json"
    before = part.read_bytes()
    part.write_text(json.dumps(json.loads(before) | {"data_hash": "x"}), encoding="utf-8")
    with pytest.raises(ResumeError, match=r"another sweep"):
        bring(paper, mine)
    part.write_bytes(before)
    record["data"]["demo"]["content_hash"] = "x"
    (paper / "paper.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ResumeError, match=r"another sweep"):
        bring(paper, mine)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, MissingFileError),
        ("- a list", ConfigError),
        ("cluster_name: x", ConfigError),
        ("cluster_name: [x", ConfigError),
        ("!!python/object/apply:os.system [exit 1]", ConfigError),
    ],
)
def test_what_is_no_cluster_file(text: str | None, error: type[BearrayError], tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=r"cluster\.yaml"):
        fetch("/r/demo", tmp_path / "here", cluster_file=file, checkpoints=False)


def test_a_uri_needs_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --cluster out"):
        fetch("s3://b/x", tmp_path, cluster_file=CLUSTER / "local.yaml", checkpoints=False)


def test_the_command(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["jobs", "fetch", "--storage", str(storage)]) == 0
    assert capsys.readouterr().out.strip() == "results/demo"
    (storage / "report").mkdir()
    (storage / "report" / "index.html").write_text("a report", encoding="utf-8")
    assert cli.run(["jobs", "fetch", "--storage", str(storage), "--to", "mine"]) == 0
    assert capsys.readouterr().out.strip() == "mine/report/index.html"
    assert cli.run(["jobs", "fetch", "--storage", str(tmp_path / "nothing")]) == 2
    assert "--cluster cluster/FILE.yaml" in capsys.readouterr().err
