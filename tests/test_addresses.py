"""Keys and passwords in addresses of storage and data are refused, and not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearray.addresses import refuse_secrets
from bearray.data import open_dataset
from bearray.errors import ConfigError
from bearray.paper.config import PaperConfig
from bearray.paper.run import run_paper
from bearray.runs import Storage
from bearray.tuning.config import SweepConfig
from bearray.tuning.sweep import check_sweep

SECRETS = (
    "s3://AKIAHIDDEN:hidden@bucket/x",
    "s3://AKIAHIDDEN@bucket/x",
    "s3://AKIAHIDDEN:hid/den+@bucket/x",
    "s3://AKIA%48IDDEN%3Ahidden@bucket/x",
    "S3://AKIAHIDDEN:hidden@bucket",
    "s3://bucket/x?access_key=AKIAHIDDEN&secret_key=hidden",
    "s3://bucket/x?region=eu-west-1&Secret_Key=hidden",
    "s3://bucket/x?endpoint_override=http%3A%2F%2Fuser%3Ahidden%40minio",
    "gs://user:hidden@bucket/x",
    "gs://bucket/x?access_token=hidden",
    "abfss://container:hidden@account.dfs.core.windows.net/x",
    "abfss://:hidden@account.blob.core.windows.net/x",
    "abfs://container@account/x?client_id=1&client_secret=hidden",
    "abfs://container@account/x?sig=hidden",
    "hdfs://user:hidden@host:8020/x",
    "https://user:hidden@host/x",
)
HARMLESS = (
    "s3://bucket/a:b@c?region=eu-west-1&scheme=http&endpoint_override=127.0.0.1:9000",
    "gs://anonymous@bucket/x",
    "abfss://container@account.dfs.core.windows.net/x?credential_kind=cli",
    "hdfs://user@host:8020/x@y",
    "hdfs://host:8020/x@y",
    "file:///home/me/a:b@c",
    "/home/me/a:b@c?token=1",
)


@pytest.mark.parametrize("address", SECRETS)
def test_a_secret_is_refused_and_not_repeated(address: str) -> None:
    for use in (refuse_secrets, Storage, open_dataset):
        with pytest.raises(ConfigError, match="come from the environment") as caught:
            use(address)
        assert "hid" not in str(caught.value).lower()


@pytest.mark.parametrize("address", HARMLESS)
def test_what_is_none_is_not(address: str) -> None:
    refuse_secrets(address)


def test_nothing_is_written_of_a_sweep_with_one(tmp_path: Path) -> None:
    for changes in ({"storage": SECRETS[0]}, {"data_dir": SECRETS[0]}):
        sweep = SweepConfig(**({"storage": str(tmp_path / "s"), "data_dir": str(tmp_path)} | changes))
        with pytest.raises(ConfigError, match="environment"):
            check_sweep(sweep)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_papers_storage_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="environment"):
        run_paper(PaperConfig(storage=SECRETS[0]))
