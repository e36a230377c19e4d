"""What values add to pods, Jobs and tests, and what they remove."""

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import tools
from tests.chart.pods import containers, pods, spec, variables
from tests.chart.sets import SETS

OPTIONS = SETS["options"]
TOKENS = "auth.mode=jwt,auth.issuer=https://login.example.com,auth.audience=shop,demo.enabled=false"
DEMO_ISSUER = "auth.mode=jwt,auth.demoIssuer.enabled=true"


class Strict(yaml.CSafeLoader):
    """Rejects duplicate keys, as kustomize does."""


def mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert len(keys) == len(set(keys)), f"{keys} at {node.start_mark}"
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


@pytest.mark.parametrize("name", SETS)
def test_keys_and_variables_are_unique(name: str) -> None:
    """Kustomize rejects duplicate keys; the server-side apply of Helm 4 rejects duplicate variables."""
    list(yaml.load_all(tools.template(*SETS[name]), Loader=Strict))
    for pod, _, each in pods(*SETS[name]):
        for container in containers(each):
            names = collections.Counter(variable["name"] for variable in container.get("env", []))
            assert not [found for found, count in names.items() if count > 1], pod


@pytest.mark.parametrize("name", SETS)
def test_missing_values_leave_no_trace(name: str) -> None:
    rendered = tools.template(*SETS[name])
    assert not [mark for mark in ("<nil>", "%!s", "%!d", ": null", "map[") if mark in rendered]


def test_extra_env_replaces_chart_variable() -> None:
    """The last one wins, for the migration too."""
    for pod in ("Deployment/shop-shopping-cart-product", "Job/shop-shopping-cart-product-migrate"):
        [container] = (each for each in spec(pod, *OPTIONS)["containers"] if each["name"] in ("product", "migrate"))
        assert variables(container)["LOG_LEVEL"] == "WARNING"
        assert variables(container)["OTEL_RESOURCE_ATTRIBUTES"] == "env=test"
        assert container["envFrom"] == [{"configMapRef": {"name": "more"}}]
    sse = spec("Deployment/shop-shopping-cart-gateway", *OPTIONS)["containers"][0]
    assert variables(sse)["SHUTDOWN_GRACE"] == "7"


def test_extra_env_replaces_file_of_bundled_secret() -> None:
    """A service reads the file first."""
    sets = "product.extraEnv[0].name=PGHOST,product.extraEnv[0].value=proxy"
    volumes = {each["name"]: each for each in spec("Deployment/shop-shopping-cart-product", "--set", sets)["volumes"]}
    files = {each["path"] for each in volumes["credentials"]["secret"]["items"]}
    assert files == {"port", "username", "password", "dbname"}


def test_migration_uses_service_volumes_and_sidecars() -> None:
    """A normal extra container would keep the Job from completing, so extraContainers are left out."""
    service = spec("Deployment/shop-shopping-cart-product", *OPTIONS)
    migration = spec("Job/shop-shopping-cart-product-migrate", *OPTIONS)
    for each in (service, migration):
        assert [container["restartPolicy"] for container in each["initContainers"]] == ["Always"]
        assert "authorities" in {volume["name"] for volume in each["volumes"]}
        assert "authorities" in {mount["name"] for mount in each["containers"][0]["volumeMounts"]}
        assert each["hostAliases"] == [{"ip": "192.0.2.1", "hostnames": ["collector.example.com"]}]
    assert [each["name"] for each in service["containers"]] == ["product", "exporter"]
    assert [each["name"] for each in migration["containers"]] == ["migrate"]


def test_jobs_and_tests_have_their_own_annotations() -> None:
    """So that a mesh injects its proxy into services but not into Jobs."""
    found = {pod: metadata["annotations"] for pod, metadata, _ in pods(*OPTIONS) if "annotations" in metadata}
    injected = {
        pod: each["sidecar.istio.io/inject"] for pod, each in found.items() if "sidecar.istio.io/inject" in each
    }
    assert {pod for pod, value in injected.items() if value == "true"} == {"Deployment/shop-shopping-cart-product"}
    assert {pod.partition("/")[0] for pod, value in injected.items() if value == "false"} == {"Job"}
    assert len(injected) == 4
    tests = [pod for pod, each in found.items() if each.get("linkerd.io/inject") == "disabled"]
    assert {pod.partition("/")[0] for pod in tests} == {"Pod"}
    assert len(tests) == 3


def test_helm_tests_accept_cpu_limits() -> None:
    checks = [each for pod, _, each in pods(*OPTIONS) if pod.startswith("Pod/")]
    assert len(checks) == 3
    for each in checks:
        assert each["containers"][0]["resources"]["limits"] == {"cpu": "100m", "memory": "128Mi"}


@pytest.mark.parametrize(
    ("sets", "program", "env"),
    [
        ("auth.mode=none", "order", {}),
        (TOKENS, "guest", {"AUTH_MODE": "jwt", "AUTH_GUESTS": "true", "PLACE_ORDER": "false"}),
        (f"{TOKENS},auth.guests=false", "guest", {"AUTH_MODE": "jwt", "AUTH_GUESTS": "false", "PLACE_ORDER": "false"}),
        (DEMO_ISSUER, "guest", {"AUTH_MODE": "jwt", "AUTH_GUESTS": "true", "PLACE_ORDER": "true"}),
        ("auth.reflection.enabled=false", "order", {"REFLECTION": "false"}),
    ],
)
def test_helm_tests_fit_who_may_call(sets: str, program: str, env: dict[str, str]) -> None:
    """They hold no secret, so with tokens they are guests. A guest's order stays: only a shop for trying gets one."""
    checks = {pod: each for pod, _, each in pods("--set", sets) if pod.startswith("Pod/")}
    for pod, each in checks.items():
        [container] = each["containers"]
        assert variables(container) == {"EDGE": "http://shop-shopping-cart-gateway:8080", **env}, pod
        assert [volume.keys() for volume in each["volumes"]] == [{"name", "configMap"}], pod
    assert checks["Pod/shop-shopping-cart-test-order"]["containers"][0]["args"][1] == f"/tests/check_{program}.py"


@pytest.mark.parametrize("helm", [tools.helm, tools.helm3])
def test_helm_3_keeps_test_pods_for_logs(helm: Callable[[], str]) -> None:
    """`helm test --logs` of Helm 3 reads the logs after it has deleted pods that succeeded."""
    program = tools.require(helm)
    only = ("--show-only", "templates/tests/pod.yaml")
    done = tools.run("template", "shop", str(tools.CHART), *only, program=program)
    assert done.returncode == 0, done.stderr
    for pod in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader):
        deleted = "hook-succeeded" in pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert deleted != tools.run("version", "--short", program=program).stdout.startswith("v3.")


def test_common_annotations_skip_pods() -> None:
    """So changing them restarts nothing."""
    for each in tools.objects(*OPTIONS):
        if each["metadata"]["name"] not in ("shop-more", "shop-text"):
            assert each["metadata"]["annotations"]["example.com/owner"] == "shop", each["metadata"]["name"]
    for pod, metadata, _ in pods(*OPTIONS):
        if not pod.startswith("Pod/"):
            assert "example.com/owner" not in metadata.get("annotations", {}), pod


def test_pod_label_overrides_common_label() -> None:
    labels = {pod: metadata["labels"]["tier"] for pod, metadata, _ in pods(*OPTIONS)}
    assert labels["Deployment/shop-shopping-cart-product"] == "catalogue"
    assert labels["Deployment/shop-shopping-cart-order"] == "backend"
    assert labels["Deployment/shop-shopping-cart-demo"] == "common"


def test_extra_objects_are_templated() -> None:
    found = {each["metadata"]["name"]: each for each in tools.objects(*OPTIONS)}
    assert found["shop-more"]["data"] == {"edge": "shop-shopping-cart-gateway"}
    assert found["shop-text"]["kind"] == "ConfigMap"


def test_default_container_is_envoy() -> None:
    [metadata] = (metadata for pod, metadata, _ in pods() if pod.endswith("-gateway"))
    container = metadata["annotations"]["kubectl.kubernetes.io/default-container"]
    gateway = spec("Deployment/shop-shopping-cart-gateway")
    assert container == "envoy"
    assert container in {each["name"] for each in containers(gateway)}


def numbers(node: Any) -> set[str]:
    """Returns the user and group ID fields anywhere in an object."""
    if isinstance(node, dict):
        own = {key for key in node if key in ("runAsUser", "runAsGroup", "fsGroup")}
        return own.union(*(numbers(value) for value in node.values()))
    return set().union(*(numbers(value) for value in node)) if isinstance(node, list) else set()


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--api-versions", "security.openshift.io/v1"), False),
        (("--set", "adaptSecurityContext=force"), False),
        (("--api-versions", "security.openshift.io/v1", "--set", "adaptSecurityContext=disabled"), True),
        ((), True),
    ],
)
def test_cluster_may_assign_user_ids(arguments: tuple[str, ...], left: bool) -> None:
    """OpenShift assigns each namespace its own, and rejects others. The rest of `restricted` stays."""
    found = pods(*arguments)
    assert any(numbers(each) for _, _, each in found) == left
    for pod, _, each in found:
        assert each["securityContext"]["runAsNonRoot"] is True, pod
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in containers(each)), pod


@pytest.mark.parametrize("name", ["default", "minimal", "options"])
def test_bundled_database_user_has_a_name(name: str) -> None:
    """Initdb looks up the user, and the image knows only its own user ID."""
    server = spec("StatefulSet/shop-shopping-cart-order-db", *SETS[name])
    mounts = {each["mountPath"]: each for each in server["containers"][0]["volumeMounts"]}
    helpers = [each["name"] for each in server.get("initContainers", [])]
    if server["securityContext"].get("runAsUser") == 999:
        assert "/etc/passwd" not in mounts
        assert helpers == []
    else:
        assert mounts["/etc/passwd"]["subPath"] == "passwd"
        assert helpers == ["passwd"]


def test_probe_thresholds_follow_values() -> None:
    probe = spec("Deployment/shop-shopping-cart-product", *OPTIONS)["containers"][0]["livenessProbe"]
    assert probe == {
        "grpc": {"port": 50052, "service": "liveness"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 9,
    }


def manager(operation: str, *fields: str) -> dict[str, Any]:
    return {
        "manager": "other",
        "operation": operation,
        "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}},
    }


@pytest.mark.parametrize(
    ("managers", "kept"),
    [
        ([manager("Apply", "replicas", "template"), manager("Update", "paused")], "replicas: 4"),
        ([manager("Apply", "replicas", "template"), manager("Update", "replicas")], ""),
        ([manager("Apply", "template"), manager("Update", "replicas")], ""),
        ([manager("Update", "replicas", "template")], ""),
        ([], ""),
    ],
)
def test_enabling_autoscaling_keeps_applied_replicas(managers: list[dict[str, Any]], kept: str, tmp_path: Path) -> None:
    """Otherwise Helm 4 would scale to 1. A number that the autoscaler owns stays anyway."""
    live = {"metadata": {"managedFields": managers}, "spec": {"replicas": 4}} if managers else {}
    asked = f'{{{{ include "shopping-cart.replicas.applied" (fromJson `{json.dumps(live)}`) }}}}'
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}, "data": {"kept": asked}}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"extraObjects": [probe]}, width=10_000))
    only = ("--show-only", "templates/extra-objects.yaml")
    [found] = tools.objects("--values", str(file), *only)
    assert found["data"]["kept"] == kept
