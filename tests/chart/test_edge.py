"""The edge's configuration: the chart's copy, and what the chart makes of it."""

import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from helm.files import FOLDER, copies, differences
from local.edge import TEMPLATES, EdgeAuth, EdgeSettings, render, template, values
from local.pages import pages, repeat
from tests.chart import tools


def test_chart_has_no_symbolic_links() -> None:
    """Flux drops them from what it fetches from Git."""
    assert [path for path in tools.CHART.rglob("*") if path.is_symlink()] == []


def test_edge_copies_are_current() -> None:
    assert differences() == []


def test_package_contains_edge_files_only(tmp_path: Path) -> None:
    done = tools.run("package", str(tools.CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.iterdir()
    with tarfile.open(archive) as package:
        found = {name.partition("/envoy/")[2] for name in package.getnames() if "/envoy/" in name}
    assert found == {copy.relative_to(FOLDER).as_posix() for _, copy in copies() if copy.is_relative_to(FOLDER)}
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
    metrics_port=9465,
    max_streams=10_000,
)


def test_envoy_variables_are_the_same_everywhere(tmp_path: Path) -> None:
    """In Envoy's files, in local/edge.py and in the chart. A value without a name would be a setting without effect."""
    used = set(re.findall(r"[$][{]([A-Z_]+)[}]", "".join(repeat(template(name)) for name in TEMPLATES)))
    text = '{{ include "shopping-cart.envoy.values" . | fromYaml | keys | sortAlpha | toJson }}'
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}, "data": {"names": text}}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"extraObjects": [probe]}, width=10_000))
    [found] = tools.objects("--values", str(file), "--show-only", "templates/extra-objects.yaml")
    assert json.loads(found["data"]["names"]) == sorted(used)
    assert values(EDGE).keys() == used


def test_chart_has_no_page_with_live_numbers() -> None:
    rendered = str(tools.objects("--set", "telemetry.metrics.enabled=true"))
    assert "/debug" not in rendered
    assert "name: debug" not in rendered


def test_chart_has_all_pages_in_a_config_map() -> None:
    """A ConfigMap has at most 1 MiB, and so has what Helm stores of a release."""
    [config] = (
        each
        for each in tools.objects()
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-gateway")
    )
    for page in pages():
        assert config["data"][page.file.name] == page.file.read_text(), page.file
    assert len(json.dumps(config)) < 512 * 1024


@pytest.mark.parametrize(
    ("setting", "edge"),
    [
        ("gateway.trustedHops=1", replace(EDGE, trusted_hops=1)),
        ("gateway.cors.origins[0]=https://shop.example", replace(EDGE, cors_origins=("https://shop.example",))),
        (
            "gateway.cors.origins[0]=https://*.shop.example:8443,gateway.cors.credentials=true",
            replace(EDGE, cors_origins=("https://*.shop.example:8443",), cors_credentials=True),
        ),
        (
            "gateway.rateLimit.requestsPerSecond=5,gateway.rateLimit.burst=7",
            replace(EDGE, rate_limit=5, rate_burst=7),
        ),
        (
            "auth.mode=jwt,auth.issuer=https://issuer.example/shop,auth.audience=shop,demo.enabled=false",
            replace(EDGE, auth=EdgeAuth(issuer="https://issuer.example/shop", audiences=("shop",))),
        ),
        (
            "auth.mode=jwt,auth.issuer=https://issuer.example,auth.audience={a,b},auth.leeway=90,demo.enabled=false",
            replace(EDGE, auth=EdgeAuth(issuer="https://issuer.example", audiences=("a", "b"), leeway=90)),
        ),
        (
            "auth.mode=jwt,auth.demoIssuer.enabled=true",
            replace(
                EDGE,
                auth=EdgeAuth(issuer="http://shop-shopping-cart-issuer:8082", audiences=("shop",)),
                issuer="shop-shopping-cart-issuer:8082",
            ),
        ),
        ("gateway.rateLimit.requestsPerSecond=0", replace(EDGE, rate_limit=0)),
        ("gateway.tls.secretName=tls", replace(EDGE, tls=Path("/tls"))),
        (
            "telemetry.endpoint=http://collector.observability:4317",
            replace(EDGE, otlp_endpoint="http://collector.observability:4317", sample_ratio=0.01),
        ),
        ("telemetry.endpoint=https://collector.observability:4317", EDGE),
        (
            "telemetry.endpoint=http://[2001:db8::1]:4317,telemetry.traces.sampleRatio=0.25",
            replace(EDGE, otlp_endpoint="http://[2001:db8::1]:4317", sample_ratio=0.25),
        ),
        ("ipFamilies={IPv6}", replace(EDGE, listen="[::]:8080")),
        ("ipFamilyPolicy=PreferDualStack", replace(EDGE, listen="[::]:8080")),
        ("ipFamilyPolicy=PreferDualStack,gateway.listenHost=0.0.0.0", EDGE),
        ("telemetry.metrics.enabled=false", replace(EDGE, metrics_port=0)),
        ("gateway.sse.maxStreams=100", replace(EDGE, max_streams=5100)),
        ("gateway.envoy.resources.limits.memory=1Gi", replace(EDGE, memory=1024**3)),
        ("gateway.envoy.resources.limits.memory=805306368", replace(EDGE, memory=768 * 1024**2)),
        ("gateway.envoy.resources.limits.memory=1.5G", replace(EDGE, memory=1_500_000_000)),
        ("gateway.envoy.resources.limits.memory=1e9", replace(EDGE, memory=1_000_000_000)),
        ("gateway.envoy.resources.limits=null", EDGE),
    ],
)
def test_chart_and_local_edge_render_alike(setting: str, edge: EdgeSettings) -> None:
    [config] = (
        each["data"]
        for each in tools.objects("--set", setting)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-gateway")
    )
    files = ("envoy.yaml", "tls.yaml") if edge.tls else ("envoy.yaml",)
    for file in files:
        assert yaml.safe_load(config[file]) == yaml.safe_load(render(edge, file))
