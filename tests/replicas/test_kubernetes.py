"""The manifests of deploy/kubernetes: what they say of our server is true, and they fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tgi.api.server.access import OPEN
from tgi.commands.route_flags import RouteFlags
from tgi.metrics import METRICS
from tgi.settings.parse import options, parse, read_values

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
PRESTOP_S = 5
API = {
    "Service": "v1",
    "StatefulSet": "apps/v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "PodMonitor": "monitoring.coreos.com/v1",
}


def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in MANIFESTS.iterdir())
    return [one for name in listed for one in yaml.safe_load_all((MANIFESTS / name).read_text())]


DOCUMENTS = documents()
WORKLOADS = [one for one in DOCUMENTS if one["kind"] in ("StatefulSet", "Deployment")]
each = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in DOCUMENTS if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


def values(workload: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "from a secret") for one in container(workload)["env"]}


def test_kinds_and_names() -> None:
    assert all(API[one["kind"]] == one["apiVersion"] for one in DOCUMENTS)
    assert len({(one["kind"], one["metadata"]["name"]) for one in DOCUMENTS}) == len(DOCUMENTS)


@each
def test_it_runs_with_few_rights(workload: dict[str, Any]) -> None:
    pod, inside = workload["spec"]["template"]["spec"], container(workload)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert inside["securityContext"]["readOnlyRootFilesystem"] is True
    assert inside["securityContext"]["allowPrivilegeEscalation"] is False
    assert inside["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = {mount["mountPath"] for mount in inside["volumeMounts"]}
    assert "/tmp" in writable and values(workload)["HOME"] in writable
    claims = workload["spec"].get("volumeClaimTemplates", [])
    named = {one["name"] for one in pod["volumes"]} | {one["metadata"]["name"] for one in claims}
    assert {mount["name"] for mount in inside["volumeMounts"]} == named


@each
def test_probes_ask_what_is_open(workload: dict[str, Any]) -> None:
    inside = container(workload)
    (port,) = inside["ports"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = inside[name]
        asked = probe.get("httpGet") or probe["tcpSocket"]
        assert asked["port"] == port["name"]
        assert "path" not in asked or ("GET", asked["path"]) in OPEN
        assert probe.get("timeoutSeconds", 1) <= probe["periodSeconds"]
    assert inside["readinessProbe"]["httpGet"]["path"] == "/health"


@each
def test_the_end_is_long_enough_for_open_answers(workload: dict[str, Any]) -> None:
    pod, inside = workload["spec"]["template"]["spec"], container(workload)
    assert inside["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(PRESTOP_S)]
    drain = values(workload).get("GRACEFUL_TERMINATION_TIMEOUT") or next(
        word.partition("=")[2] for word in inside["args"] if word.startswith("--graceful-termination-timeout")
    )
    assert pod["terminationGracePeriodSeconds"] >= PRESTOP_S + int(drain) + 10


@each
def test_labels_are_selected(workload: dict[str, Any]) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    services = [one for one in DOCUMENTS if one["kind"] == "Service"]
    assert any(one["spec"]["selector"] == labels for one in services)
    budget = find("PodDisruptionBudget", workload["metadata"]["name"])
    assert budget["spec"]["selector"]["matchLabels"] == labels
    monitored = find("PodMonitor", "tgi")["spec"]
    assert monitored["selector"]["matchLabels"].items() <= labels.items()
    assert monitored["podMetricsEndpoints"][0]["port"] == container(workload)["ports"][0]["name"]


def test_the_servers_variables_are_ours() -> None:
    server = find("StatefulSet", "tgi-server")
    config = parse([], values(server)).config
    assert (config.port, config.hostname) == (container(server)["ports"][0]["containerPort"], "0.0.0.0")
    known = {option.env for option in options()} | {"HF_TOKEN", "HOME"}
    assert set(values(server)) <= known


def test_the_router_finds_every_server() -> None:
    router, server = find("Deployment", "tgi-router"), find("StatefulSet", "tgi-server")
    flags = RouteFlags(**read_values(options(RouteFlags), container(router)["args"], values(router))[0])
    scaled = find("HorizontalPodAutoscaler", "tgi-server")["spec"]
    service, port = server["spec"]["serviceName"], container(server)["ports"][0]["containerPort"]
    assert flags.discover == (f"http://{service}:{port}",) and not flags.replica
    assert flags.port == container(router)["ports"][0]["containerPort"] and flags.salt and flags.api_key
    found = find("Service", service)["spec"]
    assert found["clusterIP"] == "None" and found["publishNotReadyAddresses"] is True
    assert scaled["minReplicas"] == server["spec"]["replicas"]


def test_scaling_looks_at_our_gauges() -> None:
    scaled = find("HorizontalPodAutoscaler", "tgi-server")["spec"]
    target = scaled["scaleTargetRef"]
    assert find(target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
    for one in scaled["metrics"]:
        assert METRICS[one["pods"]["metric"]["name"]].kind == "gauge"
