"""What holds for all objects of the chart, whatever the values."""

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.files import differences
from local.edge import COPIES, TEMPLATES, EdgeSettings, render
from tests.chart import tools
from tests.chart.sets import SETS

PODS = ("Deployment", "StatefulSet", "Job", "Pod")


def pods(*arguments: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Kind and name, metadata and spec of every pod of a render."""
    found = []
    for each in tools.objects(*arguments):
        if each["kind"] in PODS:
            template = each if each["kind"] == "Pod" else each["spec"]["template"]
            found.append((f"{each['kind']}/{each['metadata']['name']}", template["metadata"], template["spec"]))
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted(name: str) -> None:
    """Pod Security Standard `restricted`, a read-only root, no token, and resources."""
    for pod, _, spec in pods(*SETS[name]):
        assert spec["automountServiceAccountToken"] is False, pod
        assert spec["serviceAccountName"] != "default", pod
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, pod
            assert security["readOnlyRootFilesystem"] is True, pod
            assert security["capabilities"] == {"drop": ["ALL"]}, pod
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, pod
            assert "memory" in container["resources"]["limits"], pod


@pytest.mark.parametrize("name", SETS)
def test_every_pod_has_a_network_policy_of_its_own(name: str) -> None:
    rendered = tools.objects(*SETS[name])
    policies = [each["spec"] for each in rendered if each["kind"] == "NetworkPolicy"]
    if name == "minimal":
        assert not policies
        return
    everything = [each for each in policies if "app.kubernetes.io/component" not in each["podSelector"]["matchLabels"]]
    assert [each["policyTypes"] for each in everything] == [["Ingress", "Egress"]]
    assert not {"ingress", "egress"} & everything[0].keys()
    components = {each["podSelector"]["matchLabels"].get("app.kubernetes.io/component") for each in policies}
    for pod, metadata, _ in pods(*SETS[name]):
        assert metadata["labels"]["app.kubernetes.io/component"] in components, pod


def test_no_two_workloads_select_the_same_pods() -> None:
    selectors = [
        str(each["spec"]["selector"]) for each in tools.objects() if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert len(set(selectors)) == len(selectors) == 6


def test_selectors_are_for_ever() -> None:
    """A selector cannot be changed by an upgrade; these are what the first version had."""
    selectors = [
        each["spec"]["selector"]["matchLabels"]
        for each in tools.objects()
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "shop-shopping-cart-product")
    ]
    assert selectors == [
        {
            "app.kubernetes.io/name": "shopping-cart",
            "app.kubernetes.io/instance": "shop",
            "app.kubernetes.io/component": "product",
        }
    ]


def test_a_new_version_of_the_chart_restarts_no_database(tmp_path: Path) -> None:
    """There is one pod of each: its restart fails calls."""
    newer = tmp_path / "shopping-cart"
    shutil.copytree(tools.CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(chart.read_text().replace(tools.version(), "9.9.9"))
    now, then = (
        [each["spec"]["template"] for each in tools.objects(chart=path) if each["kind"] == "StatefulSet"]
        for path in (tools.CHART, newer)
    )
    assert len(now) == 2
    assert now == then


def test_two_releases_share_no_object() -> None:
    one, two = (
        {(each["kind"], each["metadata"]["name"]) for each in tools.objects(release=name)} for name in ("one", "two")
    )
    assert not one & two


def test_a_pod_has_time_for_its_shutdown() -> None:
    for pod, _, spec in pods("--set", "shutdown.delay=7,shutdown.grace=31"):
        if pod.startswith("Deployment") and "demo" not in pod:
            assert spec["terminationGracePeriodSeconds"] > 7 + 31, pod


def test_an_autoscaler_counts_the_pods_alone() -> None:
    rendered = tools.objects("--set", "product.autoscaling.enabled=true")
    deployments = {each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "Deployment"}
    assert "replicas" not in deployments["shop-shopping-cart-product"]
    assert deployments["shop-shopping-cart-order"]["replicas"] == 1


def test_an_own_database_leaves_the_bundled_one_out() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in tools.objects(*SETS["cnpg"])}
    assert not {kind for kind, name in names if name.endswith("-db") and kind != "NetworkPolicy"}
    assert ("Secret", "shop-shopping-cart-product-db") not in names


def test_with_given_passwords_nothing_is_random() -> None:
    """Argo CD renders again and again, and would find a difference each time."""
    given = ("template", "shop", str(tools.CHART), "--set", "product.database.password=one,order.database.password=two")
    one, two = (tools.run(*given) for _ in range(2))
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout


def test_nobody_is_told_a_superusers_password() -> None:
    """Also not with given passwords, from which one could follow."""
    rendered = tools.objects("--set", "product.database.password=one,order.database.password=two")
    secrets = [each["data"].keys() for each in rendered if each["kind"] == "Secret"]
    assert secrets == 2 * [{"host", "port", "username", "dbname", "password"}]
    servers = [each for each in rendered if each["kind"] == "StatefulSet"]
    assert len(servers) == 2
    for server in servers:
        names = {each["name"] for each in server["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert names == {"PGDATA", "POSTGRES_USER", "POSTGRES_DB"}


def test_password_is_in_no_object_but_its_secret() -> None:
    """Not even as a hash: without salt it can be guessed, and a pod that has it would be replaced with the password."""
    one, two = (
        tools.objects("--set", f"product.database.password={name},order.database.password={name}")
        for name in ("one", "two")
    )
    changed = [here["kind"] for here, there in zip(one, two, strict=True) if here != there]
    assert changed == ["Secret", "Secret"]


def test_database_credentials_are_files_and_no_variables() -> None:
    """Files change with the Secret while a pod runs; variables do not."""
    for pod, _, spec in pods(*SETS["cnpg"]):
        for container in containers(spec):
            assert "valueFrom" not in str(container.get("env", [])), pod
            assert "subPath" not in str(container.get("volumeMounts", [])), pod
    for _, _, spec in pods():
        mounts = [each for container in containers(spec) for each in container.get("volumeMounts", [])]
        assert all("subPath" not in each for each in mounts if each["name"] == "credentials")


def credential_files(sets: str, pod: str = "Deployment/shop-shopping-cart-product") -> dict[str, str]:
    """Keys of the Secret, by the names of the files that they become."""
    found = {name: spec for name, _, spec in pods("--set", sets)}
    [secret] = [each["secret"] for each in found[pod]["volumes"] if each["name"] == "credentials"]
    assert secret["secretName"] == "mine"
    return {each["path"]: each["key"] for each in secret["items"]}


def test_keys_of_the_secret_are_named_by_values() -> None:
    found = credential_files("product.database.existingSecret=mine,product.database.keys.password=pass-phrase")
    assert found == {
        "host": "host",
        "port": "port",
        "username": "username",
        "password": "pass-phrase",
        "dbname": "dbname",
    }


def test_variable_of_extra_env_replaces_the_file() -> None:
    sets = "product.database.existingSecret=mine,product.extraEnv[0].name=PGHOST,product.extraEnv[0].value=proxy"
    assert credential_files(sets).keys() == {"port", "username", "password", "dbname"}


@pytest.mark.parametrize(("seconds", "kept"), [("null", "left out"), ("0", 0), ("60", 60)])
def test_finished_jobs_stay_for_the_time_that_is_said(seconds: str, kept: int | str) -> None:
    jobs = [
        each["spec"]
        for each in tools.objects("--set", f"migration.ttlSecondsAfterFinished={seconds}")
        if each["kind"] == "Job"
    ]
    assert len(jobs) == 3
    assert {job.get("ttlSecondsAfterFinished", "left out") for job in jobs} == {kept}


def edge_service(*arguments: str) -> dict[str, Any]:
    [found] = (
        each["spec"]
        for each in tools.objects(*arguments)
        if (each["kind"], each["metadata"]["name"]) == ("Service", "shop-shopping-cart-gateway")
    )
    return dict(found)


def test_a_load_balancer_is_told_what_is_special_about_it() -> None:
    found = edge_service(*SETS["minimal"])
    assert found["loadBalancerClass"] == "example.com/lb"
    assert found["loadBalancerSourceRanges"] == ["192.0.2.0/24", "2001:db8::/32"]
    assert found["allocateLoadBalancerNodePorts"] is False


def test_what_is_a_load_balancers_is_left_out_elsewhere() -> None:
    """Kubernetes refuses it."""
    sets = "gateway.service.loadBalancerClass=a.b/c,gateway.service.allocateLoadBalancerNodePorts=false"
    found = edge_service("--set", f"{sets},gateway.service.trafficDistribution=PreferClose")
    assert not {"loadBalancerClass", "allocateLoadBalancerNodePorts"} & found.keys()
    assert found["trafficDistribution"] == "PreferClose"


def test_address_families_hold_for_all_services() -> None:
    services = [each["spec"] for each in tools.objects(*SETS["options"]) if each["kind"] == "Service"]
    assert len(services) == 5
    for each in services:
        assert (each["ipFamilyPolicy"], each["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])


def notes(sets: str) -> str:
    done = tools.run("install", "shop", str(tools.CHART), "--dry-run=client", "--set", sets)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize(("hops", "warned"), [("0", True), ("1", False)])
def test_the_notes_warn_of_a_proxy_that_is_not_counted(hops: str, warned: bool) -> None:
    found = notes(f"ingress.enabled=true,gateway.trustedHops={hops}")
    assert ("all customers count as one client" in found) == warned


@pytest.mark.parametrize(
    ("sets", "warned"),
    [
        ("gateway.service.type=LoadBalancer", True),
        ("gateway.service.type=NodePort,gateway.service.externalTrafficPolicy=Cluster", True),
        ("gateway.service.type=LoadBalancer,gateway.service.externalTrafficPolicy=Local", False),
        ("gateway.service.type=LoadBalancer,gateway.trustedHops=1", False),
        ("gateway.service.type=NodePort,gateway.trustedHops=1,ingress.enabled=true", False),
        ("gateway.service.type=ClusterIP", False),
    ],
)
def test_the_notes_warn_of_a_node_that_hides_its_clients(sets: str, warned: bool) -> None:
    assert ("Set gateway.service.externalTrafficPolicy: Local" in notes(sets)) == warned


BEHIND = "networkPolicy.from[0].namespaceSelector.matchLabels.name=gateways"
PARENT = "parentRefs[0].name=public"


@pytest.mark.parametrize(
    ("sets", "ways"),
    [
        ("gateway.service.type=LoadBalancer", "the load balancer"),
        ("gateway.service.type=NodePort", "the port on every node"),
        ("ingress.enabled=true", "the Ingress"),
        (f"httpRoute.enabled=true,httpRoute.{PARENT}", "the HTTPRoute"),
        (f"grpcRoute.enabled=true,grpcRoute.{PARENT}", "the GRPCRoute"),
        ("gateway.service.type=NodePort,ingress.enabled=true", "the port on every node and the Ingress"),
        (f"ingress.enabled=true,networkPolicy.enabled=false,{BEHIND}", "the Ingress"),
        ("gateway.service.type=ClusterIP", ""),
        ("gateway.service.type=LoadBalancer,gateway.service.loadBalancerSourceRanges={192.0.2.0/24}", ""),
        (f"gateway.service.type=LoadBalancer,ingress.enabled=true,{BEHIND}", ""),
    ],
)
def test_the_notes_warn_of_a_shop_that_is_open(sets: str, ways: str) -> None:
    """It authenticates nobody: whoever comes in reads and changes everything."""
    found = notes(sets)
    assert ("does not authenticate callers" in found) == bool(ways)
    assert f"and {ways} may let in everybody" in found or not ways


def test_the_production_example_lets_nobody_in_but_a_gateway() -> None:
    rendered = {
        (each["kind"], each["metadata"]["name"]): each["spec"]
        for each in tools.objects(*SETS["production"])
        if each["kind"] in ("Service", "NetworkPolicy", "Ingress", "HTTPRoute", "GRPCRoute")
    }
    assert rendered["Service", "shop-shopping-cart-gateway"]["type"] == "ClusterIP"
    assert not {kind for kind, _ in rendered} & {"Ingress", "HTTPRoute", "GRPCRoute"}
    [rule] = rendered["NetworkPolicy", "shop-shopping-cart-gateway"]["ingress"]
    assert all("podSelector" in peer for peer in rule["from"])


def test_the_notes_ask_the_pods_for_a_key_that_is_missing() -> None:
    """They find them: the selector in the notes is that of the service's pods."""
    sets = "product.database.existingSecret=mine"
    [command] = (line for line in notes(sets).splitlines() if "describe pod" in line)
    asked = dict(each.split("=") for each in command.rpartition(" ")[2].split(","))
    labels = {pod: metadata["labels"] for pod, metadata, _ in pods("--set", sets)}
    assert asked.items() <= labels["Deployment/shop-shopping-cart-product"].items()
    assert not asked.items() <= labels["Deployment/shop-shopping-cart-order"].items()


def test_a_key_that_is_empty_is_left_to_libpq() -> None:
    found = credential_files("product.database.existingSecret=mine,product.database.keys.port=")
    assert found.keys() == {"host", "username", "password", "dbname"}


def test_clients_inside_find_pods_before_they_are_ready() -> None:
    """They ask each for its health. What readiness is late for would not be there otherwise."""
    services = [each["spec"] for each in tools.objects() if each["kind"] == "Service"]
    headless = [each for each in services if each.get("clusterIP") == "None"]
    assert [each["publishNotReadyAddresses"] for each in headless] == [True, True]
    for pod, _, spec in pods():
        if pod in ("Deployment/shop-shopping-cart-product", "Deployment/shop-shopping-cart-order"):
            [container] = spec["containers"]
            assert container["readinessProbe"]["grpc"]["service"] == "readiness"
            peers = {each["name"]: each.get("value") for each in container["env"]}
            assert (peers["PEERS"], peers["READY_DELAY"]) == (pod.partition("/")[2], "35")


def test_the_chart_has_no_symbolic_link() -> None:
    """Flux leaves them out of what it fetches from Git."""
    assert [path for path in tools.CHART.rglob("*") if path.is_symlink()] == []


def test_the_charts_copies_of_the_edge_are_up_to_date() -> None:
    assert differences() == []


def test_a_package_has_the_edge_and_nothing_else_of_its_folder(tmp_path: Path) -> None:
    done = tools.run("package", str(tools.CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.iterdir()
    with tarfile.open(archive) as package:
        found = {name.rpartition("/")[2] for name in package.getnames() if "/envoy/" in name}
    assert found == {*TEMPLATES, *COPIES}
    packaged, here = (
        [each for each in tools.objects(chart=chart) if each["kind"] == "ConfigMap"] for chart in (archive, tools.CHART)
    )
    assert packaged == here


EDGE = EdgeSettings(
    files=Path("/etc/envoy"),
    product="shop-shopping-cart-product:50052",
    order="shop-shopping-cart-order:50053",
    sse_http_port=8081,
    sse_grpc_port=50054,
    max_streams=10_000,
)


@pytest.mark.parametrize(
    ("setting", "edge"),
    [
        ("gateway.trustedHops=1", replace(EDGE, trusted_hops=1)),
        ("gateway.cors.origins[0]=https://shop.example", replace(EDGE, cors_origins=("https://shop.example",))),
        (
            "gateway.cors.origins[0]=https://*.shop.example:8443,gateway.cors.credentials=true",
            replace(EDGE, cors_origins=("https://*.shop.example:8443",), cors_credentials=True),
        ),
        ("gateway.tls.secretName=tls", replace(EDGE, tls=Path("/tls"))),
        (
            "telemetry.endpoint=http://collector.observability:4317",
            replace(EDGE, otlp_endpoint="http://collector.observability:4317"),
        ),
        ("telemetry.endpoint=https://collector.observability:4317", EDGE),
        ("telemetry.endpoint=http://[2001:db8::1]:4317", replace(EDGE, otlp_endpoint="http://[2001:db8::1]:4317")),
        ("ipFamilies={IPv6}", replace(EDGE, listen="[::]:8080")),
        ("ipFamilyPolicy=PreferDualStack", replace(EDGE, listen="[::]:8080")),
        ("ipFamilyPolicy=PreferDualStack,gateway.listenHost=0.0.0.0", EDGE),
        ("gateway.sse.maxStreams=100", replace(EDGE, max_streams=5100)),
        ("gateway.envoy.resources.limits.memory=1Gi", replace(EDGE, memory=1024**3)),
        ("gateway.envoy.resources.limits.memory=805306368", replace(EDGE, memory=768 * 1024**2)),
        ("gateway.envoy.resources.limits.memory=1.5G", replace(EDGE, memory=1_500_000_000)),
        ("gateway.envoy.resources.limits.memory=1e9", replace(EDGE, memory=1_000_000_000)),
        ("gateway.envoy.resources.limits=null", EDGE),
    ],
)
def test_chart_and_local_edge_render_the_same(setting: str, edge: EdgeSettings) -> None:
    [config] = (
        each["data"]
        for each in tools.objects("--set", setting)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-gateway")
    )
    files = ("envoy.yaml", "tls.yaml") if edge.tls else ("envoy.yaml",)
    for file in files:
        assert yaml.safe_load(config[file]) == yaml.safe_load(render(edge, file))
