"""Kubernetes manifests against the API's own schemas, and against what the API would only find out on a cluster."""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.37"
FILES = sorted(ROOT.glob("infra/k8s/*.yaml"))
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
NOT_THE_WEB = ["10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1"]

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    return [document for path in FILES for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def named(kind: str) -> dict[str, Manifest]:
    return {document["metadata"]["name"]: document for document in manifests() if document["kind"] == kind}


def workloads() -> list[Manifest]:
    return [document for document in manifests() if "template" in document.get("spec", {})]


def by_name(value: Any) -> str:
    return f"{value['kind']}-{value['metadata']['name']}"


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


@pytest.mark.parametrize("manifest", manifests(), ids=by_name)
def test_a_manifest_is_what_the_api_takes(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_misspelt_key_is_not_what_the_api_takes() -> None:
    [worker] = named("Deployment").values()
    wrong = {**worker, "spec": {**worker["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", workloads(), ids=by_name)
def test_a_pod_is_bounded_and_without_privileges(manifest: Manifest) -> None:
    pod = manifest["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False, "nothing of ours talks to the cluster's API"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert not [
            entry for entry in container.get("env", []) if re.search("SECRET|PASSWORD|TOKEN|KEY", entry["name"])
        ]


@pytest.mark.parametrize("manifest", workloads(), ids=by_name)
def test_an_image_is_of_this_version_and_knows_the_user(manifest: Manifest) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    pod = manifest["spec"]["template"]["spec"]
    for container in pod["containers"]:
        name, _, tag = container["image"].partition(":")
        assert tag == version
        dockerfile = (ROOT / "infra" / "docker" / f"{name.removeprefix('owl3-')}.Dockerfile").read_text()
        assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile


@pytest.mark.parametrize("manifest", workloads(), ids=by_name)
def test_what_a_pod_mounts_is_there(manifest: Manifest) -> None:
    pod = manifest["spec"]["template"]["spec"]
    volumes = {entry["name"]: entry for entry in pod["volumes"]}
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == set(volumes)
    claims = {entry["persistentVolumeClaim"]["claimName"] for entry in volumes.values() if "emptyDir" not in entry}
    assert claims <= set(named("PersistentVolumeClaim"))
    assert pod.get("serviceAccountName", "owl3-worker") in named("ServiceAccount")


@pytest.mark.parametrize("manifest", workloads(), ids=by_name)
def test_a_network_policy_holds_every_pod_in_both_directions(manifest: Manifest) -> None:
    labels = manifest["spec"]["template"]["metadata"]["labels"].items()
    if "selector" in manifest["spec"]:
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels, "else the API refuses it"
    holding = [
        policy["spec"]["policyTypes"]
        for policy in named("NetworkPolicy").values()
        if policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    ]
    assert holding == [["Ingress", "Egress"]]


def test_a_network_policy_lets_nobody_reach_a_private_address() -> None:
    blocks = [
        target["ipBlock"]
        for policy in named("NetworkPolicy").values()
        for rule in policy["spec"]["egress"]
        for target in rule["to"]
        if "ipBlock" in target
    ]
    assert blocks
    for block in blocks:
        holes = [ipaddress.ip_network(net) for net in block["except"]]
        for address in NOT_THE_WEB:
            assert any(ipaddress.ip_address(address) in hole for hole in holes), address


def test_training_has_shared_memory_and_the_time_to_save() -> None:
    for job in named("Job").values():
        pod = job["spec"]["template"]["spec"]
        [container] = pod["containers"]
        [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        assert volume["emptyDir"]["medium"] == "Memory"
        size = quantity(volume["emptyDir"]["sizeLimit"])
        assert 2**30 <= size < quantity(container["resources"]["limits"]["memory"]), "it counts as the pod's memory"
        [grace] = [word.partition("=")[2] for word in container["args"] if word.startswith("--grace=")]
        assert int(grace) < pod["terminationGracePeriodSeconds"]


def test_a_training_that_can_only_fail_again_is_not_started_again() -> None:
    for job in named("Job").values():
        [rule] = job["spec"]["podFailurePolicy"]["rules"]
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"]["values"] == [1, 2], "3 and signals are interruptions; the next pod resumes"
        pod = job["spec"]["template"]["spec"]
        assert rule["onExitCodes"]["containerName"] in {container["name"] for container in pod["containers"]}
        assert pod["restartPolicy"] == "Never", "the API takes a podFailurePolicy only with this"
