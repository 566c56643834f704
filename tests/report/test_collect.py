import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError, MissingFileError
from bearray.report import collect, write_report
from tests.report.storage import write_predictions, write_run


def test_finds_runs_at_any_depth_and_leaves_other_folders_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "deep" / "er" / "one", method="SFT")
    write_run(tmp_path / "two", method="MSL", hit=None)
    model = tmp_path / "two" / "checkpoints" / "best"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")  # a model's config, not a run's
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "config.json").write_text("not json, and no business of ours")
    found = collect(tmp_path)
    assert [r.id for r in found.runs] == ["a/deep/er/one", "two"]
    assert set(found.runs[0].predictions) == {"trie", "full"}
    assert found.runs[1].predictions == {}


def test_predictions_are_the_shards_in_order_of_row(tmp_path: Path) -> None:
    write_run(tmp_path / "run", method="SFT", n=200, seed=4, hit=0.3)
    frame = collect(tmp_path).runs[0].predictions["trie"]
    assert frame["row"].tolist() == list(range(200))
    tables = [pq.read_table(p) for p in sorted((tmp_path / "run" / "predictions").glob("*.parquet"))]
    assert len(tables) == 4
    assert frame["rank"].tolist() == pa.concat_tables(tables)["rank"].to_pylist()


def test_own_normaliser_decides_which_folder_is_which(tmp_path: Path) -> None:
    write_run(tmp_path / "run", method="SFT", changes={"decoding.normalize": "full"})
    run = collect(tmp_path).runs[0]
    assert (tmp_path / "run" / "predictions_trie").is_dir()
    own = pq.read_table(tmp_path / "run" / "predictions" / "shard-00000.parquet")["rank"].to_pylist()
    assert run.predictions["full"]["rank"].tolist()[: len(own)] == own


def test_failed_unfinished_and_untested_runs_are_kept_with_a_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="BEAR", status="failed", error="worker lost", hit=None)
    write_run(tmp_path / "b", method="BEAR", status=None, epochs=2)
    write_run(tmp_path / "c", method="SFT", hit=None)
    a, b, c = collect(tmp_path).runs
    assert (a.status, a.reason) == ("failed", "worker lost")
    assert b.status == "unfinished"
    assert b.reason == "there is no result.json; epoch 2 finished, last logged step 40"
    assert c.status == "finished" and "not decoded" in c.reason


def test_a_status_of_a_later_version_is_shown(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    write_run(storage / "a", method="SFT")
    write_run(storage / "b", method="BEAR", role="trial", status="shelved", error="epoch 1: pruned", hit=None)
    write_run(storage / "c", method="MSL", status='">paused<b>', hit=None, valid=None)
    _, b, c = collect(storage).runs
    assert (b.status, b.reason) == ("shelved", "epoch 1: pruned")
    assert c.reason == ""
    page = write_report(storage).read_text()
    assert "3 runs: 1 finished, 1 &#34;&gt;paused&lt;b&gt;, 1 shelved" in page
    assert '<span class="status-other">shelved</span>: epoch 1: pruned' in page
    assert "paused<b>" not in page


def test_what_befell_a_run_is_shown(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    write_run(storage / "a", method="SFT")
    file = storage / "a" / "result.json"
    events = ["rank 1 made no progress for 1800.5 s after step 3, in <module> (x.py:1)"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"events": events}))
    (run,) = collect(storage).runs
    assert run.events == tuple(events) and run.reason == ""
    page = write_report(storage).read_text()
    assert "<br>rank 1 made no progress for 1800.5 s after step 3, in &lt;module&gt; (x.py:1)" in page


def test_shards_of_a_decoding_that_goes_on_are_no_sample(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", hit=None)
    write_predictions(folder / "predictions", np.zeros(10), np.arange(10))
    assert collect(tmp_path).runs[0].predictions == {}


def test_a_step_repeated_after_a_restart_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", epochs=1)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "step": 20, "epoch": 1.0, "loss": 7.0, "nll": None}) + "\n")
    steps = collect(tmp_path).runs[0].steps
    assert steps["step"].tolist() == list(range(1, 21))
    assert steps["loss"].iloc[-1] == 7.0
    assert np.isnan(steps["nll"].iloc[-1])


def test_validation_comes_from_the_best_epoch_where_there_is_no_result(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", status=None, epochs=1)
    lines = [{"kind": "epoch", "epoch": e, "valid_ndcg@10": n, "valid_hr@10": h} for e, n, h in
             [(1, 0.1, 0.5), (2, 0.3, 0.4), (3, 0.2, 0.6)]]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    run = collect(tmp_path).runs[0]
    assert (run.valid("ndcg@10"), run.valid("hr@10"), run.valid("ndcg@1")) == (0.3, 0.4, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"run": {}}'),
        ("config.json", b"\xff\xfe"),
        ("result.json", '{"status": ""}'),
        ("result.json", '{"error": null}'),
        ("result.json", ""),
        ("metrics.jsonl", '{"kind": "step", "step": 1}\n{"kind": "st'),
        ("metrics.jsonl", '{"kind": "other"}\n'),
        ("metrics.jsonl", '{"kind": "step"}\n'),
        ("predictions/shard-00001.parquet", b"PAR1 and then nothing"),
        ("predictions_full/shard-00000.parquet", b""),
    ],
)
def test_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: str | bytes) -> None:
    folder = write_run(tmp_path / "run", method="SFT")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        collect(tmp_path)
    assert str(folder / name) in str(caught.value)


def test_lost_shard_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", n=200)
    (folder / "predictions" / "shard-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"holds 136 test cases, but result.json counted 200"):
        collect(tmp_path)


def test_lost_predictions_folder_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT")
    (folder / "predictions_full").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="predictions_full is missing"):
        collect(tmp_path)


def test_predictions_of_another_run_are_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", hit=0.5)
    for path in (folder / "predictions").iterdir():
        path.unlink()
    write_predictions(folder / "predictions", np.zeros(200), np.arange(200) % 80)
    with pytest.raises(DataError, match=r"gives hr@1 = 1\.0+, but result.json says"):
        collect(tmp_path)


@pytest.mark.parametrize(("rank", "word"), [(-1.0, "-1.0"), (float("nan"), "nan"), (1.5, "1.5")])
def test_impossible_rank_is_an_error(tmp_path: Path, rank: float, word: str) -> None:
    folder = write_run(tmp_path / "run", method="SFT", n=3)
    write_predictions(folder / "predictions", np.array([0.0, rank, 2.0]), np.arange(3))
    with pytest.raises(DataError, match=rf"shard-00000.parquet, row 1: rank is {word}"):
        collect(tmp_path)


def test_test_case_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", n=3)
    write_predictions(folder / "predictions", np.zeros(3), np.arange(3), rows=np.array([0, 1, 1]))
    with pytest.raises(DataError, match=r"test case \(row\) 1 more than once"):
        collect(tmp_path)


def test_column_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="SFT", n=3)
    path = folder / "predictions" / "shard-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["warm"]), path)
    with pytest.raises(DataError, match="has no column warm"):
        collect(tmp_path)


def test_missing_and_empty_storage_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        collect(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="holds no run"):
        collect(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFileError, match="is not a folder"):
        collect(tmp_path / "file")


def test_base_model_folder_goes_by_its_last_name_unless_two_share_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", base_model="/models/x/Llama-3.2-3B", kind="folder", n=3)
    assert collect(tmp_path).runs[0].base_model == "Llama-3.2-3B"
    write_run(tmp_path / "b", method="SFT", base_model="/models/y/Llama-3.2-3B", kind="folder", n=3)
    names = [r.base_model for r in collect(tmp_path).runs]
    assert names == ["/models/x/Llama-3.2-3B", "/models/y/Llama-3.2-3B"]
