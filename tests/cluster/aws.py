"""AWS as moto emulates it, the user's edits of gpu.yaml, and the `aws iam` commands of docs/cluster.md."""

from __future__ import annotations

import re
import shlex

import boto3
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from ray.autoscaler._private.aws import config as bootstrap
from ray.autoscaler._private.aws import utils

from tests.cluster.files import CLUSTER, ROOT

BUCKET = "recommender"
REGION = "us-east-1"


def gpu_yaml(image: str, region: str = REGION) -> str:
    """The file after the edits that its comments ask for."""
    text = (CLUSTER / "gpu.yaml").read_text(encoding="utf-8")
    for old, new in ((REGION, region), ("ami-00000000000000000", image), ("000000000000", ACCOUNT)):
        assert old in text
        text = text.replace(old, new)
    return text


def documented(role: str) -> list[list[str]]:
    """Arguments of each `aws iam ...` about a role, as on the page after its names are filled in."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    page = page.replace("YOUR_BUCKET", BUCKET).replace("YOUR_ACCOUNT", ACCOUNT)
    commands = [shlex.split(line) for line in re.findall(r"^ +aws iam (.+)$", page, re.M)]
    return [words for words in commands if role in words]


def aws_iam(words: list[str]) -> None:
    """What the `aws` program does: `put-role-policy --role-name x` is `put_role_policy(RoleName="x")`. Fails
    where AWS has no such command or option, or refuses the value."""
    command, *options = words
    names = ["".join(map(str.title, flag.removeprefix("--").split("-"))) for flag in options[::2]]
    client = boto3.client("iam", region_name=REGION)
    getattr(client, command.replace("-", "_"))(**dict(zip(names, options[1::2], strict=True)))


def forget_clients() -> None:
    """Ray and boto3 keep clients, and with them a region, credentials and moto's or the real network."""
    for cache in (utils.resource_cache, utils.client_cache, bootstrap._get_subnets_or_die):
        cache.cache_clear()
    boto3.DEFAULT_SESSION = None
