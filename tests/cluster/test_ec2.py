"""`ray up cluster/gpu.yaml` against an emulated AWS: Ray's own code makes role, key, security group and head,
then the head's autoscaler, with the head's rights, launches each kind of worker. What EC2 has recorded is
compared with what the file promises. Nodes are not logged in to; tests/cluster/test_over_ssh.py does that."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import moto
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import settings
from moto.core.authorization import enable_iam_authentication
from moto.ec2.models.instance_types import InstanceTypeBackend
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import config as bootstrap
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.event_summarizer import EventSummarizer
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.util import ConcurrentCounter, prepare_config, validate_config

from tests.cluster.aws import BUCKET, REGION, aws_iam, documented, forget_clients, gpu_yaml
from tests.cluster.files import CLUSTER, ROOT

FAMILIES = ("m7i", "g6", "g6e", "p5")
WORKERS = ("gpu_on_demand", "gpu_spot")


class Updater:
    """Copies what the head's autoscaler is to have; Ray's own would log in. Head and laptop share a home."""

    exitcode = 0

    def __init__(self, **arguments: Any) -> None:
        for there, here in arguments["file_mounts"].items():
            if there.startswith("~/ray_bootstrap"):
                shutil.copy(here, Path(there).expanduser())

    def start(self) -> None: ...

    def join(self) -> None: ...


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, an AWS account with nothing in it but the image, and no network."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("token", encoding="utf-8")

    def refuse(_: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    with (
        pytest.MonkeyPatch.context() as patch,
        moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}),
    ):
        patch.setenv("HOME", str(home))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.chdir(ROOT)  # where `ray up` is called: the mounts are relative to it
        patch.setattr(tempfile, "tempdir", str(home))  # Ray's cache of configurations
        patch.setattr(socket.socket, "connect", refuse)
        for check in (
            "ENABLE_AMI_VALIDATION",
            "ENABLE_KEYPAIR_VALIDATION",
            "EC2_ENABLE_INSTANCE_TYPE_VALIDATION",
        ):
            patch.setattr(settings, check, True)
        few = [kind for kind in InstanceTypeBackend.instance_types if kind.name.partition(".")[0] in FAMILIES]
        patch.setattr(InstanceTypeBackend, "instance_types", few)  # Ray asks for all, which takes moto long
        patch.setattr(bootstrap, "time", SimpleNamespace(sleep=lambda _: None))  # half a minute for IAM
        patch.setattr(commands, "NodeUpdaterThread", Updater)
        patch.setattr(commands, "exec_cluster", lambda *_, **__: None)  # `ray stop` on the head
        patch.setattr(commands, "POLL_INTERVAL", 0)
        forget_clients()
        yield home
        forget_clients()


def make_image(region: str = REGION) -> str:
    """One whose root device has the name that Ubuntu's images give it."""
    root = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8, "VolumeType": "gp2"}}
    answer = boto3.client("ec2", region).register_image(
        Name=f"ubuntu-{region}", RootDeviceName="/dev/sda1", BlockDeviceMappings=[root], Architecture="x86_64"
    )
    image: str = answer["ImageId"]
    return image


def ray_up(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = commands.create_or_update_cluster(
        str(file), None, None, no_restart=False, restart_only=False, yes=True
    )
    return config


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    """With the rights that an instance of this role has; moto then asks IAM before each call."""
    arn = boto3.client("iam", REGION).get_role(RoleName=role)["Role"]["Arn"]
    answer = boto3.client("sts", REGION).assume_role(RoleArn=arn, RoleSessionName="node")["Credentials"]
    with pytest.MonkeyPatch.context() as patch, enable_iam_authentication():
        patch.setenv("AWS_ACCESS_KEY_ID", answer["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", answer["SecretAccessKey"])
        patch.setenv("AWS_SESSION_TOKEN", answer["SessionToken"])
        forget_clients()
        yield
    forget_clients()


def launch_workers() -> None:
    """As the autoscaler on the head does when work waits for a GPU."""
    start = yaml.safe_load((CLUSTER / "gpu.yaml").read_text(encoding="utf-8"))["head_start_ray_commands"][-1]
    file = Path(start.partition("--autoscaling-config=")[2]).expanduser()
    config = prepare_config(yaml.safe_load(file.read_text(encoding="utf-8")))
    validate_config(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    pending = ConcurrentCounter()
    launcher = BaseNodeLauncher(
        provider, pending, EventSummarizer(), NodeProviderAvailabilityTracker(),
        node_types=config["available_node_types"],
    )  # fmt: skip
    for node_type in WORKERS:
        pending.inc(node_type, 1)
        assert len(launcher.launch_node(config, 1, node_type) or {}) == 1


def instances(region: str = REGION) -> list[dict[str, Any]]:
    answer = boto3.client("ec2", region).describe_instances()
    return [instance for group in answer["Reservations"] for instance in group["Instances"]]


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


@pytest.fixture(scope="module")
def image(laptop: Path) -> str:
    return make_image()


@pytest.fixture(scope="module")
def file(laptop: Path, image: str) -> Path:
    edited = laptop / "gpu.yaml"
    edited.write_text(gpu_yaml(image), encoding="utf-8")
    return edited


@pytest.fixture(scope="module")
def nodes(file: Path) -> dict[str, dict[str, Any]]:
    """What EC2 says of a head and a worker of each kind, by node type."""
    for words in documented("bearray-worker"):
        aws_iam(words)
    ray_up(file)
    for words in documented("ray-autoscaler-v1"):
        aws_iam(words)
    with acting_as("ray-autoscaler-v1"):
        launch_workers()
    found = {tags(instance)["ray-user-node-type"]: instance for instance in instances()}
    assert len(instances()) == len(found)
    return found


def test_the_edits_are_marked() -> None:
    """Whoever changes the lines marked CHANGE, and those below such a comment, has changed enough."""
    before = (CLUSTER / "gpu.yaml").read_text(encoding="utf-8").splitlines()
    after = gpu_yaml("ami-0123456789abcdef0", "eu-central-1").splitlines()
    edited = [number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    for number in edited:
        if before[number].lstrip().startswith("#"):
            continue
        first = number
        while before[first - 1].lstrip().startswith("#"):
            first -= 1
        assert "CHANGE" in "\n".join(before[first : number + 1]), before[number]
    assert len([number for number in edited if not before[number].lstrip().startswith("#")]) == 4


def test_a_head_and_both_kinds_of_worker_are_launched(nodes: dict[str, dict[str, Any]], image: str) -> None:
    assert set(nodes) == {"head", *WORKERS}
    for name, node in nodes.items():
        assert node["ImageId"] == image
        assert node["InstanceType"] == ("m7i.2xlarge" if name == "head" else "g6e.2xlarge")
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
        assert node["PublicIpAddress"]  # `ray up` logs in from outside
        assert node["Placement"]["AvailabilityZone"] in {f"{REGION}{letter}" for letter in "abc"}
    assert {name for name, node in nodes.items() if node.get("InstanceLifecycle") == "spot"} == {"gpu_spot"}


def test_their_disks(nodes: dict[str, dict[str, Any]]) -> None:
    """One disk each, in the place of the image's own; it goes with the node."""
    for node in nodes.values():
        (disk,) = node["BlockDeviceMappings"]
        assert disk["DeviceName"] == node["RootDeviceName"]
        assert disk["Ebs"]["DeleteOnTermination"]
        answer = boto3.client("ec2", REGION).describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])
        (volume,) = answer["Volumes"]
        assert (volume["Size"], volume["VolumeType"]) == (200, "gp3")


def test_their_roles(nodes: dict[str, dict[str, Any]]) -> None:
    """The head may hand workers theirs, and nothing else is passed on."""
    iam = boto3.client("iam", REGION)
    profiles = {name: node["IamInstanceProfile"]["Arn"].partition("/")[2] for name, node in nodes.items()}
    assert profiles == {"head": "ray-autoscaler-v1", **dict.fromkeys(WORKERS, "bearray-worker")}
    (worker,) = iam.get_instance_profile(InstanceProfileName="bearray-worker")["InstanceProfile"]["Roles"]
    (name,) = iam.list_role_policies(RoleName="ray-autoscaler-v1")["PolicyNames"]
    policy = iam.get_role_policy(RoleName="ray-autoscaler-v1", PolicyName=name)["PolicyDocument"]
    (statement,) = policy["Statement"]
    assert statement == {"Effect": "Allow", "Action": "iam:PassRole", "Resource": worker["Arn"]}


def test_a_worker_has_the_bucket_and_no_more(nodes: dict[str, dict[str, Any]]) -> None:
    for bucket in (BUCKET, "others"):
        boto3.client("s3", REGION).create_bucket(Bucket=bucket)
    with acting_as("bearray-worker"):
        s3 = boto3.client("s3", REGION)
        where = {"Bucket": BUCKET, "Key": "sweeps/book/result.json"}
        s3.put_object(**where, Body=b"{}")
        upload = s3.create_multipart_upload(**where)["UploadId"]
        part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"[]")
        parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
        assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1
        assert s3.get_object(**where)["Body"].read() == b"[]"
        s3.delete_object(**where)
        refused = [
            lambda: s3.put_object(Bucket="others", Key="a", Body=b""),
            lambda: s3.list_objects_v2(Bucket="others"),
            lambda: s3.delete_bucket(Bucket=BUCKET),
            lambda: boto3.client("ec2", REGION).describe_instances(),
        ]
        for call in refused:
            with pytest.raises(ClientError, match=r"AccessDenied|UnauthorizedOperation"):
                call()


def test_only_ssh_is_open_from_outside(nodes: dict[str, dict[str, Any]]) -> None:
    ids = {group["GroupId"] for node in nodes.values() for group in node["SecurityGroups"]}
    (group,) = boto3.client("ec2", REGION).describe_security_groups(GroupIds=list(ids))["SecurityGroups"]
    outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    inside = [rule for rule in group["IpPermissions"] if rule["UserIdGroupPairs"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]
    assert [rule["IpProtocol"] for rule in inside] == ["-1"]  # all of them
    assert [pair["GroupId"] for rule in inside for pair in rule["UserIdGroupPairs"]] == list(ids)


def test_the_key_and_the_tags(laptop: Path, nodes: dict[str, dict[str, Any]]) -> None:
    (key,) = (laptop / ".ssh").glob("ray-autoscaler_*.pem")
    assert key.stat().st_mode & 0o077 == 0
    for name, node in nodes.items():
        assert node["KeyName"] == key.stem
        kind = "head" if name == "head" else "worker"
        assert tags(node)["ray-cluster-name"] == "bearray-gpu"
        assert tags(node)["ray-node-type"] == kind
        assert tags(node)["Name"] == f"ray-bearray-gpu-{kind}"


def test_resources_are_those_of_the_machines(nodes: dict[str, dict[str, Any]]) -> None:
    """Ray takes the file's word for CPUs and GPUs before a node exists."""
    types = yaml.safe_load((CLUSTER / "gpu.yaml").read_text(encoding="utf-8"))["available_node_types"]
    for name, node in nodes.items():
        assert own_resources(node["InstanceType"]) == types[name]["resources"]


def own_resources(instance_type: str) -> dict[str, int]:
    (answer,) = boto3.client("ec2", REGION).describe_instance_types(InstanceTypes=[instance_type])[
        "InstanceTypes"
    ]
    gpus = sum(gpu["Count"] for gpu in answer.get("GpuInfo", {}).get("Gpus", []))
    return {"CPU": answer["VCpuInfo"]["DefaultVCpus"], **({"GPU": gpus} if gpus else {})}


def test_machines_that_comments_name(laptop: Path) -> None:
    """Each is told with its resources where these are not the file's."""
    text = re.sub(r"\n *# ", " ", (CLUSTER / "gpu.yaml").read_text(encoding="utf-8"))
    comment = text.partition("CHANGE the type")[2].partition("`resources`")[0]
    pieces = re.split(r"\b(\w+\.\d+xlarge)\b", comment)
    told = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    assert len(told) == 3
    for instance_type, words in told.items():
        said = {name: int(number) for name, number in re.findall(r"([CG]PU): (\d+)", words)}
        assert {"CPU": 8, "GPU": 1} | said == own_resources(instance_type)


def test_the_zones_have_them(laptop: Path) -> None:
    config = yaml.safe_load((CLUSTER / "gpu.yaml").read_text(encoding="utf-8"))
    wanted = {node["node_config"]["InstanceType"] for node in config["available_node_types"].values()}
    for zone in config["provider"]["availability_zone"].split(","):
        pages = boto3.client("ec2", REGION).get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "location", "Values": [zone]}]
        )  # fmt: skip
        offered = {offer["InstanceType"] for page in pages for offer in page["InstanceTypeOfferings"]}
        assert wanted <= offered, zone


def test_another_region(laptop: Path, nodes: dict[str, dict[str, Any]]) -> None:
    region = "eu-central-1"
    edited = laptop / "frankfurt.yaml"
    image = make_image(region)
    edited.write_text(gpu_yaml(image, region), encoding="utf-8")
    ray_up(edited)
    (head,) = instances(region)
    assert head["ImageId"] == image and head["Placement"]["AvailabilityZone"] == f"{region}a"


def test_up_again_keeps_the_head_and_down_ends_all(file: Path, nodes: dict[str, dict[str, Any]]) -> None:
    """The last of this file: it ends the nodes of the others."""
    ray_up(file)
    assert {node["InstanceId"] for node in instances()} == {node["InstanceId"] for node in nodes.values()}
    commands.teardown_cluster(
        str(file), yes=True, workers_only=False, override_cluster_name=None, keep_min_workers=False
    )
    assert {node["State"]["Name"] for node in instances()} == {"terminated"}
    assert not boto3.client("ec2", REGION).describe_volumes()["Volumes"]
