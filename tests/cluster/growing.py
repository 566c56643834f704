"""A sweep on a cluster that grows, with data and storage on S3, played in namespaces of its own by
`test_autoscaler_ray.py`: Ray's own autoscaler starts and ends nodes (as processes of this machine, by its
fake_multinode provider), and moto is the S3 server. Prints one JSON object as its last line.

    python -m tests.cluster.growing DATA BASE FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BUCKET = "bearray"
IDLE_MINUTES = 0.5
"""Longer than a sweep is idle between two of its parts."""
HEAD = "127.0.0.1:6379"
"""The port is the one that the fake provider's nodes look for."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
"""Ray's own, by its full name: by its short one Ray looks for a file that is not in the package."""
HEAD_NODE = "f" * 51 + "00000"
"""What the fake provider calls the head."""


def autoscaling(max_nodes: int) -> dict[str, Any]:
    """What `ray up` would write to the head: a head of 1 CPU, and nodes of 4 CPUs from none on."""
    return {
        "cluster_name": "growing",
        "max_workers": max_nodes,
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external", "module": PROVIDER, "launch_multiple": True, "head_node_id": HEAD_NODE,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "auth": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 4}, "node_config": {}, "min_workers": 0, "max_workers": max_nodes,
            },
        },
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [],
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
        "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip


def start_s3() -> Any:
    """A server that speaks S3, and the environment in which pyarrow finds it: every process started later
    has it, as on a node whose credentials come from its environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return server


def start_head(folder: Path) -> None:
    """A head with an autoscaler, and a token of its own in `folder`."""
    file = folder / "autoscaling.json"
    file.write_text(json.dumps(autoscaling(max_nodes=1)))
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    os.environ |= {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": HEAD,
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }  # fmt: skip
    own = {
        "RAY_enable_autoscaler_v2": "1",  # the first autoscaler mistakes nodes that have one address
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
    }  # fmt: skip
    words = ["start", "--head", "--num-cpus=1", f"--port={HEAD.rpartition(':')[2]}", "--disable-usage-stats"]
    words += [f"--autoscaling-config={file}", "--dashboard-host=127.0.0.1", "--object-store-memory=200000000"]
    program = [str(Path(sys.executable).with_name("ray")), *words]
    subprocess.run(program, check=True, stdout=sys.stderr, env={**os.environ, **own})


def nodes() -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def play(data: Path, base: Path, folder: Path) -> dict[str, Any]:
    import ray

    from bearray.config import override
    from bearray.runs import Storage
    from bearray.tuning.cluster import connect
    from bearray.tuning.config import SearchConfig, SweepConfig
    from bearray.tuning.sweep import run_sweep
    from tests.conftest import MICRO_RUN

    storage, there = Storage(f"s3://{BUCKET}/sweep"), Storage(f"s3://{BUCKET}/data")
    there.put_folder("demo", data, last="items.parquet")
    changes = {**MICRO_RUN, "train.epochs": 1, "train.num_workers": 2, "train.cpus_per_worker": 1.5}
    sweep = SweepConfig(
        data_dir=there.child("demo").root, storage=storage.root, base_model=(str(base),),
        methods=("bear",), search=SearchConfig(trials=1), run=override(SweepConfig().run, changes),
    )  # fmt: skip
    connect()
    found: dict[str, Any] = {"nodes before": nodes()}
    run_sweep(sweep)
    found["nodes made"] = len(ray.nodes()) - 1  # also those that were given back meanwhile
    runs = [storage.child("runs", name) for name in storage.names("runs")]
    found["results"] = {run.root: run.read_json("result.json") for run in runs}
    found["files"] = storage.files()

    def times() -> dict[str, tuple[int, int]]:
        return {name: (i.mtime_ns, i.size) for name, i in storage.listing(without=("report",)).items()}

    before = times()
    run_sweep(dataclasses.replace(sweep))
    found["changed by a second call"] = sorted(n for n, t in times().items() if before.get(n) != t)
    ray.shutdown()  # while a driver is connected, actors of Ray Data's may keep a node
    found["nodes at the end"] = _until_few(seconds=60 * IDLE_MINUTES + 240)
    return found


def _until_few(seconds: float) -> int:
    """Nodes once the autoscaler has ended all but the head, or when time is up."""
    import ray

    end = time.monotonic() + seconds
    while True:
        ray.init(log_to_driver=False, logging_level="error")
        found = nodes()
        ray.shutdown()
        if found == 1 or time.monotonic() > end:
            return found
        time.sleep(3)


if __name__ == "__main__":
    start_s3()
    place = Path(sys.argv[3])
    start_head(place)
    print(json.dumps(play(Path(sys.argv[1]), Path(sys.argv[2]), place)), flush=True)
