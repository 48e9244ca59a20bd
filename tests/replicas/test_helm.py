"""The Helm chart, and Ray's manifests: valid by Kubernetes' own schemas, and the same as the plain manifests.

`helm` and `kubectl` are those that `python tools/get_helm.py` takes out of a package; without them what needs them is
skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.replicas.test_kubernetes import DOCUMENTS

validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm"
VERSIONS = ("1.30", "1.33")
CUSTOM = ("PodMonitor",)
needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None, reason="there is no helm: `python tools/get_helm.py` gets it"
)
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")

Documents = dict[tuple[str, str], dict[str, Any]]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *words], capture_output=True, text=True, check=False)


def by_name(text: str) -> Documents:
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def rendered(*words: str, name: str = "tgi") -> Documents:
    done = helm("template", name, str(CHART), *words)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def check(document: dict[str, Any]) -> None:
    for version in VERSIONS:
        if document["kind"] not in CUSTOM:
            validate(document, version, strict=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_plain_manifests_are_valid(document: dict[str, Any]) -> None:
    check(document)


def test_validation_sees_a_typo() -> None:
    (one,) = [one for one in DOCUMENTS if one["kind"] == "StatefulSet"]
    with pytest.raises(Exception, match="replcas"):
        check({**one, "spec": {**one["spec"], "replcas": 1}})


@needs_helm
@needs_kubectl
def test_the_chart_renders_to_the_plain_manifests() -> None:
    plain = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "deploy/kubernetes")], capture_output=True, text=True, check=True
    )
    assert rendered() == by_name(plain.stdout)


@needs_helm
def test_the_chart_is_clean_and_knows_its_values() -> None:
    assert helm("lint", "--strict", str(CHART)).returncode == 0
    for wrong in ("servr.replicas=1", "router.replicas=0", "env.PORT=1", "drainSeconds=soon", "env.model_id=x"):
        assert helm("template", "tgi", str(CHART), "--set", wrong).returncode != 0, wrong


@needs_helm
def test_every_value_is_used() -> None:
    values = {
        "image.repository=registry/tgi": "registry/tgi:latest",
        "image.tag=v9": "text-generation-inference:v9",
        "env.MAX_TOTAL_TOKENS=512": "MAX_TOTAL_TOKENS",
        "secret=other": "'name': 'other'",
        "drainSeconds=33": "'terminationGracePeriodSeconds': 48",
        "server.replicas=3": "'minReplicas': 3",
        "server.port=9000": "http://big-servers:9000",
        "server.storage=9Gi": "9Gi",
        "server.storageClassName=fast": "'storageClassName': 'fast'",
        "server.resources.limits.memory=3Gi": "3Gi",
        "server.nodeSelector.disk=ssd": "'nodeSelector': {'disk': 'ssd'}",
        "server.tolerations[0].operator=Exists": "'tolerations': [{'operator': 'Exists'}]",
        "router.replicas=5": "'replicas': 5",
        "router.startTimeout=7": "--start-timeout=7",
        "router.resources.limits.memory=1Gi": "'memory': '1Gi'",
        "autoscaling.maxReplicas=9": "'maxReplicas': 9",
        "autoscaling.targetQueue=7": "'averageValue': '7'",
        "autoscaling.targetCache=500m": "500m",
    }
    for value, shown in values.items():
        name = "--set-string" if "target" in value or "MAX" in value else "--set"
        documents = rendered(name, value, name="big")
        assert shown in str(documents), value
        for one in documents.values():
            assert one["metadata"]["name"].startswith("big")
            check(one)
    assert not any(kind == "HorizontalPodAutoscaler" for kind, _ in rendered("--set", "autoscaling.enabled=false"))
    assert not any(kind == "PodMonitor" for kind, _ in rendered("--set", "podMonitor.enabled=false"))
    leaves = subprocess.run(["helm", "show", "values", str(CHART)], capture_output=True, text=True, check=True).stdout
    known = {".".join(leaf.split(".")[:2]) for leaf in _leaves(yaml.safe_load(leaves))}
    used = {".".join(value.partition("=")[0].partition("[")[0].split(".")[:2]) for value in values}
    assert known - used == {"env.MODEL_ID", "autoscaling.enabled", "podMonitor.enabled"}


def _leaves(values: Any, path: str = "") -> list[str]:
    if isinstance(values, dict) and values:
        return [leaf for key, value in values.items() for leaf in _leaves(value, f"{path}.{key}" if path else key)]
    return [path]


def test_pods_of_the_rayservice_are_valid() -> None:
    service = yaml.safe_load((ROOT / "deploy/ray/rayservice.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod})
        (inside,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and inside["securityContext"]["readOnlyRootFilesystem"]
        assert {one["name"]: one["value"] for one in inside["env"]}["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert pod["terminationGracePeriodSeconds"] >= 90 + 2 * 15
