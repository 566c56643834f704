"""cluster/kuberay.yaml against Kubernetes' own schema (pods) and KubeRay's fields around them."""

from __future__ import annotations

import copy
import json
import shlex
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.cluster.files import CLUSTER, ROOT, pinned, project_version
from tests.cluster.kuberay_schema import SCHEMAS

KUBERNETES = "1.33"
"""The oldest release that was supported when this was written."""


def documents() -> dict[str, dict[str, Any]]:
    """The file's resources by kind."""
    found = list(yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text(encoding="utf-8")))
    assert len({document["kind"] for document in found}) == len(found)
    return {document["kind"]: document for document in found}


def templates(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates of a RayCluster by name."""
    spec = cluster["spec"]
    workers = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **workers}


def validate(document: dict[str, Any]) -> None:
    """Both checks of a RayCluster or a RayJob."""
    jsonschema.validate(document, SCHEMAS[document["kind"]])
    if document["kind"] == "RayCluster":
        for name, template in templates(document).items():
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)


CLUSTER_SPEC = documents()["RayCluster"]["spec"]


def test_a_sweep_is_told_what_the_autoscaler_may_add() -> None:
    """Ray does not tell a sweep on Kubernetes; what its environment says must be what the groups are."""
    (head,) = CLUSTER_SPEC["headGroupSpec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in head["env"]}["BEARRAY_NODE_TYPES"]
    groups = {}
    for group in CLUSTER_SPEC["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        resources = {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])}
        groups[group["groupName"]] = {"resources": resources, "max_workers": group["maxReplicas"]}
    assert json.loads(told) == groups


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_it_is_valid(kind: str) -> None:
    validate(documents()[kind])


def put(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *way, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    place: Any = changed
    for key in way:
        place = place[key]
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "ray.io/v1alpha1"),
        ("spec/authOption", {"mode": "token"}),
        ("spec/authOptions/mode", "on"),
        ("spec/workerGroupSpecs/0/maxReplicas", "8"),
        ("spec/workerGroupSpecs/0/rayStartParams", {"num-cpus": 8}),
        ("spec/headGroupSpec/template/spec/containers/0/image", 1),
        ("spec/headGroupSpec/template/spec/containers/0/volumeMount", []),
        ("spec/workerGroupSpecs/0/template/spec/restartPolicy", ["Never"]),
        ("spec/workerGroupSpecs/0/template/spec/containers/0/env", {"HF_TOKEN": "x"}),
    ],
)
def test_mistakes_are_noticed(path: str, value: object) -> None:
    wrong = put(documents()["RayCluster"], path, value)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(wrong)


def test_versions_are_the_projects() -> None:
    assert CLUSTER_SPEC["rayVersion"] == pinned("ray")
    images = {
        container["image"]
        for template in templates(documents()["RayCluster"]).values()
        for container in template["spec"]["containers"]
    }
    assert images == {f"YOUR_REGISTRY/bearray:{project_version()}-ray{pinned('ray')}"}


def test_the_token_is_asked_for_and_is_not_in_the_file() -> None:
    assert CLUSTER_SPEC["authOptions"]["mode"] == "token" and CLUSTER_SPEC["authOptions"]["secretName"]
    assert "Secret" not in documents()
    for template in templates(documents()["RayCluster"]).values():
        for container in template["spec"]["containers"]:
            plain = {v["name"] for v in container["env"] if "value" in v}
            assert plain == {"BEARRAY_NODE_TYPES"}


def test_only_workers_ask_for_gpus_and_start_from_zero() -> None:
    (workers,) = CLUSTER_SPEC["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
    (head,) = CLUSTER_SPEC["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = workers["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_dashboard_is_not_published() -> None:
    assert CLUSTER_SPEC["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in CLUSTER_SPEC["headGroupSpec"]


def test_the_job_runs_on_that_cluster_a_sweep_that_exists() -> None:
    job, cluster = documents()["RayJob"]["spec"], documents()["RayCluster"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert (
        job["backoffLimit"] == 0 and not job["shutdownAfterJobFinishes"]
    )  # KubeRay wants this of a selector
    python, script, *options = shlex.split(job["entrypoint"])
    assert python == "python" and (ROOT / script.removeprefix("/opt/bearray/")).is_file()
    assert options[::2] == ["--data-dir", "--storage"]
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert "WORKDIR /opt/bearray\n" in dockerfile and "COPY --chown=ray:ray sweeps sweeps\n" in dockerfile
