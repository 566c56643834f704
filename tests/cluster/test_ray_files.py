"""The files for `ray up`: valid by Ray's own schema after Ray's own defaults, and true of this project. No
cloud is asked, no Ray is started."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config
from ray.scripts.scripts import start

from tests.cluster.files import CLUSTER, ROOT

CLOUDS = ("gpu.yaml", "gpu-gcp.yaml")
FILES = (*CLOUDS, "local.yaml")


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def prepared(name: str) -> dict[str, Any]:
    """The configuration as `ray up` makes it of the file, before it asks a cloud."""
    config: dict[str, Any] = prepare_config(read(name))
    return config


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_it(name: str) -> None:
    validate_config(prepared(name))


@pytest.mark.parametrize("name", FILES)
def test_rays_check_would_notice(name: str) -> None:
    config = prepared(name)
    for change in ({"min_worker": 1}, {"max_workers": "8"}, {"provider": {}}, {"auth": {"user": "ubuntu"}}):
        with pytest.raises(ValidationError):
            validate_config({**copy.deepcopy(config), **change})


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_ours_is_lost_to_defaults(name: str) -> None:
    """Ray's defaults for a cloud install a Ray of their own and bind the dashboard to every address."""
    ours = read(name)
    full = fillout_defaults(copy.deepcopy(ours) if name in CLOUDS else prepared(name))
    for field in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "file_mounts"):
        assert full[field] == ours[field]
    assert "ray-wheels" not in yaml.safe_dump(full)


@pytest.mark.parametrize("name", CLOUDS)
def test_head_without_gpu_and_workers_from_zero(name: str) -> None:
    config = prepared(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "GPU" not in head["resources"] and head["max_workers"] == 0
    assert set(types) == {"gpu_spot", "gpu_on_demand"}
    for node in types.values():
        assert node["resources"]["GPU"] >= 1
        assert node["min_workers"] == 0 < node["max_workers"] <= config["max_workers"]
    assert types["gpu_spot"]["priority"] > types["gpu_on_demand"]["priority"]


def test_spot_is_spot_and_on_demand_is_not() -> None:
    aws = read("gpu.yaml")["available_node_types"]
    assert aws["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    google = read("gpu-gcp.yaml")["available_node_types"]
    assert google["gpu_spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    for node in ("head", "gpu_on_demand"):
        assert "InstanceMarketOptions" not in aws[node]["node_config"]
        assert "provisioningModel" not in google[node]["node_config"].get("scheduling", {})


def test_all_nodes_of_a_cloud_have_one_image() -> None:
    """Ray refuses nodes with different minor versions of Python."""
    aws = read("gpu.yaml")["available_node_types"].values()
    assert len({node["node_config"]["ImageId"] for node in aws}) == 1
    google = read("gpu-gcp.yaml")["available_node_types"].values()
    images = {node["node_config"]["disks"][0]["initializeParams"]["sourceImage"] for node in google}
    assert len(images) == 1


@pytest.mark.parametrize("workers", [[], ["192.0.2.11"], ["192.0.2.11", "192.0.2.12"]])
def test_local_takes_any_number_of_machines(workers: list[str]) -> None:
    config = read("local.yaml")
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": workers}
    config = prepare_config(config)
    validate_config(config)
    (node,) = config["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == config["max_workers"] == len(workers)


@pytest.mark.parametrize("name", FILES)
def test_mounts_bring_what_the_setup_needs_and_no_more(name: str) -> None:
    mounts = read(name)["file_mounts"]
    token = "~/.ray/auth_token"
    assert mounts.pop(token) == token
    for there, here in mounts.items():
        assert there == f"~/bearray/{here}" and (ROOT / here).exists(), there
    assert {"pyproject.toml", "constraints.txt", "bearray", "cluster", "sweeps"} <= set(mounts.values())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for field in re.findall(r'^(?:readme|license-files) = \[?"([^"]+)"', project, re.M):
        assert field in mounts.values(), f"pip install -e reads {field}, which pyproject.toml names"
    assert not {".", "data", "results", ".venv", ".git"} & set(mounts.values())


@pytest.mark.parametrize("name", FILES)
def test_setup_commands_name_files_and_extras_that_exist(name: str) -> None:
    config = prepared(name)  # setup_commands are then part of the head's
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    commands = [shlex.split(c) for c in config["head_setup_commands"] + config["worker_setup_commands"]]
    ours = [words for words in commands if words[0] == "bash"]
    assert ours[0] == ["bash", "~/bearray/cluster/setup.sh"]  # workers run this one, too
    for _, script, *extras in ours:
        assert (ROOT / script.removeprefix("~/bearray/")).is_file()
        assert set(extras) <= known
    head_only = {
        "gpu.yaml": ["aws"],
        "gpu-gcp.yaml": ["gcp"],
        "local.yaml": [],
    }  # what the autoscaler imports
    assert shlex.split(config["head_setup_commands"][-1])[2:] == head_only[name]


def ray_start(command: str) -> dict[str, str]:
    """Options of the `ray start` in a shell command; fails where this version of Ray has no such option."""
    words = shlex.split(command)
    words = words[words.index("start") + 1 :]
    known = {flag for parameter in start.params for flag in parameter.opts}
    options = dict(word.partition("=")[::2] for word in words)
    assert set(options) <= known, f"ray start has no {set(options) - known}"
    return options


@pytest.mark.parametrize("name", FILES)
def test_ray_starts_from_the_projects_environment_with_the_token(name: str) -> None:
    config = prepared(name)
    for role in ("head", "worker"):
        stop, begin = config[f"{role}_start_ray_commands"]
        assert stop == ". ~/bearray/cluster/env.sh && ray stop"
        assert begin.startswith("cd ~/bearray && . cluster/env.sh && ulimit")  # a job's folder is that of Ray
    head = ray_start(config["head_start_ray_commands"][1])
    assert head["--dashboard-host"] == "127.0.0.1"
    assert head["--autoscaling-config"] == "~/ray_bootstrap_config.yaml" and "--head" in head
    worker = ray_start(config["worker_start_ray_commands"][1])
    assert worker["--address"] == f"$RAY_HEAD_IP:{head['--port']}"


def test_an_option_that_ray_start_has_not_is_noticed() -> None:
    with pytest.raises(AssertionError, match="ray start has no"):
        ray_start("ray start --head --dashboard-hots=127.0.0.1")


def test_env_puts_the_environment_first_on_path(tmp_path: Path) -> None:
    """From wherever it is sourced; BEARRAY_VENV names another environment."""
    show = f'. "{CLUSTER / "env.sh"}" && echo "$PATH" "$RAY_AUTH_MODE"'

    def run(**environment: str) -> str:
        variables = {"PATH": "/usr/bin:/bin", **environment}
        done = subprocess.run(
            ["bash", "-euc", show], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert run() == f"{ROOT}/.venv/bin:/usr/bin:/bin token"
    assert run(BEARRAY_VENV="/opt/venv") == "/opt/venv/bin:/usr/bin:/bin token"


def sourced(home: Path, **variables: str) -> tuple[dict[str, str], str]:
    """The environment after env.sh, and what it says."""
    done = subprocess.run(
        ["bash", "-euc", f'. "{CLUSTER / "env.sh"}" && env -0'],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line), done.stderr


SECRETS = """# of the job
HF_TOKEN=hf_abc=def

WANDB_API_KEY=with a space and $(touch created) `touch created`
not a line of secret
LAST=1"""


@pytest.mark.parametrize("place", [".config/bearray/secrets.env", "elsewhere"])
def test_env_reads_secrets_literally(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SECRETS, encoding="utf-8")
    environment, said = sourced(tmp_path, **({"BEARRAY_SECRETS": str(file)} if place == "elsewhere" else {}))
    assert environment["HF_TOKEN"] == "hf_abc=def" and environment["LAST"] == "1"
    assert environment["WANDB_API_KEY"] == "with a space and $(touch created) `touch created`"
    assert not Path("created").exists() and not (tmp_path / "created").exists()
    assert "line 5" in said and "not a line" not in said
    assert not {"_file", "_line", "_number"} & set(environment)


def test_env_without_secrets(tmp_path: Path) -> None:
    environment, said = sourced(tmp_path)
    assert said == "" and "HF_TOKEN" not in environment
