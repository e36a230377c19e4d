"""Values: each is described, and a wrong one is rejected with its path."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.readme import comments
from tests.chart import tools

FREE = {
    "annotations",
    "behavior",
    "dnsConfig",
    "labels",
    "retention",
    "sessionAffinityConfig",
    "startup",
    "readiness",
    "liveness",
    "podSecurityContext",
    "containerSecurityContext",
    "commonAnnotations",
    "podAnnotations",
    "podLabels",
    "commonLabels",
    "nodeSelector",
    "affinity",
    "parameters",
    "limits",
    "requests",
}
"""Objects whose keys come from the user or from Kubernetes."""

WRONG = {
    "product.replica=3": "replica",
    "replicas=3": "replicas",
    "product.replicas=three": "/product/replicas",
    "order.replicas=-1": "/order/replicas",
    "gateway.service.type=Cluster": "/gateway/service/type",
    "gateway.service.port=0": "/gateway/service/port",
    "image.tag=a:b": "/image/tag",
    "image.digest=sha256:12": "/image/digest",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "product.database.sslmode=on": "/product/database/sslmode",
    "product.database.existingsecret=db": "existingsecret",
    "order.database.keys.pasword=p": "pasword",
    "order.database.poolSize=0": "/order/database/poolSize",
    "order.database.pooler.hosts=pooler": "hosts",
    "product.database.readOnly.maxLag=0": "/product/database/readOnly/maxLag",
    "order.database.readOnly.host=replicas": "/order/database/readOnly",
    "httpRoute.enabled=true": "/httpRoute/parentRefs",
    "log.level=VERBOSE": "/log/level",
    "log.level=INFO\\,shop.rpc=LOUD": "/log/level",
    "log.level=shop.rpc": "/log/level",
    "telemetry.endpoint=collector:4317": "/telemetry/endpoint",
    "telemetry.endpoint=http://collector": "/telemetry/endpoint",
    "telemetry.traces.sampleRatio=2": "/telemetry/traces/sampleRatio",
    "telemetry.traces.sampleRatio=1.5": "/telemetry/traces/sampleRatio",
    "telemetry.traces.sampleRatio=1%": "/telemetry/traces/sampleRatio",
    "telemetry.metrics.podmonitor.enabled=true": "podmonitor",
    "telemetry.metrics.podMonitor.interval=30": "/telemetry/metrics/podMonitor/interval",
    "telemetry.metrics.podMonitor.interval=half a minute": "/telemetry/metrics/podMonitor/interval",
    "telemetry.metrics.rules.docsUrl=docs": "/telemetry/metrics/rules/docsUrl",
    "telemetry.metrics.rules.docsUrl=https://git.example.com/docs/": "/telemetry/metrics/rules/docsUrl",
    "telemetry.metrics.dashboards.label=": "/telemetry/metrics/dashboards/label",
    "telemetry.metrics.otlp=true": "telemetry.metrics.otlp needs telemetry.endpoint",
    "telemetry.metrics.enabled=false,telemetry.metrics.podMonitor.enabled=true": "telemetry.metrics.podMonitor.enabled",
    "telemetry.metrics.enabled=false,telemetry.metrics.rules.enabled=true": "telemetry.metrics.rules.enabled needs",
    "product.podDisruptionBudget.maxUnavailable=some": "/product/podDisruptionBudget/maxUnavailable",
    "gateway.cors.origins[0]=shop.example.com": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=*": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=https://Shop.example": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=https://münchen.example": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=https://a b": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=https://shop.*.example": "/gateway/cors/origins/0",
    "gateway.cors.origins[0]=https://shop.example:443": "gateway.cors.origins: https://shop.example:443",
    "gateway.cors.origins[0]=http://shop.example:80": "gateway.cors.origins: http://shop.example:80",
    "shutdown.grace=soon": "/shutdown/grace",
    "commonLabels.app\\.kubernetes\\.io/part-of=store": "/commonLabels",
    "product.podLabels.app\\.kubernetes\\.io/component=web": "/product/podLabels",
    "fullnameOverride=shop.v1": "/fullnameOverride",
    "fullnameOverride=9shop": "/fullnameOverride",
    "nameOverride=a.b": "/nameOverride",
    "telemetry.endpoint=http://::1:4317": "/telemetry/endpoint",
    "telemetry.endpoint=http://[::1:4317": "/telemetry/endpoint",
    "ipFamilies={IPv5}": "/ipFamilies/0",
    "gateway.service.loadBalancerSourceRanges={192.0.2.1}": "/gateway/service/loadBalancerSourceRanges/0",
    "postgresql.storage.retention.whenDeleted=Keep": "/postgresql/storage/retention/whenDeleted",
    "product.probes.liveness.failureTreshold=3": "failureTreshold",
    "product.extraVolumes[0].emptyDir.medium=Memory": "/product/extraVolumes/0",
    "global.imageRegistry=https://registry.example.com": "/global/imageRegistry",
    "gateway.sse.maxStreams=20001": "/gateway/sse/maxStreams",
    "gateway.sse.maxStreams=9831": "513Mi or more",
    "auth.mode=oidc": "/auth/mode",
    "auth.issue=https://login.example.com": "issue",
    "auth.algorithms={HS256}": "/auth/algorithms/0",
    "auth.algorithms={none}": "/auth/algorithms/0",
    "auth.audience=a b": "/auth/audience",
    "auth.audience[0]=": "/auth/audience",
    "auth.jwks.url=login.example.com": "/auth/jwks/url",
    "auth.internal.optionalUntil=tomorrow": "/auth/internal/optionalUntil",
    "auth.staff.claim=": "/auth/staff/claim",
    "auth.tickets.streamTTL=0": "/auth/tickets/streamTTL",
    "auth.demoIssuer.replicas=2": "replicas",
    "gateway.envoy.resources.limits.memory=lots": "gateway.envoy.resources.limits.memory: lots",
}


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((tools.CHART / "values.yaml").read_text())
    return loaded


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node and path.rpartition(".")[2] not in FREE | {"resources"}:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def closed(node: Any, path: str = "") -> Iterator[str]:
    """Yields the paths of objects in the schema that accept any key."""
    if isinstance(node, dict):
        open_by_intent = path == "/properties/global" or "then" in path
        if "properties" in node and node.get("additionalProperties") is not False and not open_by_intent:
            yield path
        for key, value in node.items():
            if key not in ("if", "then"):
                yield from closed(value, f"{path}/{key}")


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_value_is_rejected_with_its_path(setting: str) -> None:
    done = tools.run("template", "shop", str(tools.CHART), "--set", setting)
    assert done.returncode != 0
    named = WRONG[setting]
    assert named in done.stderr or named.strip("/").replace("/", ".") in done.stderr, done.stderr


def test_every_value_has_a_comment() -> None:
    text = (tools.CHART / "values.yaml").read_text()
    assert set(leaves(values())) == {path for path, _ in comments(text) if not path.startswith("#")}


def test_readme_lists_current_values() -> None:
    done = subprocess.run([sys.executable, "helm/readme.py", "--check"], cwd=tools.ROOT, check=False)
    assert done.returncode == 0


def documented() -> list[str]:
    """Returns the YAML blocks of the docs that are values of the chart."""
    blocks = re.findall(r"```yaml\n(.*?)```", (tools.ROOT / "docs/kubernetes.md").read_text(), flags=re.DOTALL)
    return [block for block in blocks if yaml.safe_load(block).keys() <= values().keys()]


@pytest.mark.parametrize("block", documented(), ids=lambda block: str(block).splitlines()[1].strip())
def test_documented_values_change_the_policies(block: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block)
    policies = [each for each in tools.objects("--values", str(file)) if each["kind"] == "NetworkPolicy"]
    demo = ("--set", f"demo.enabled={str('demo:' not in block).lower()}")
    unchanged = [each for each in tools.objects(*demo) if each["kind"] == "NetworkPolicy"]
    assert len(policies) == len(unchanged)
    assert policies != unchanged


def test_templates_begin_with_defaults() -> None:
    """Helm may render any of them first, or alone with `--show-only`."""
    templates = [path for path in (tools.CHART / "templates").rglob("*") if path.suffix in (".yaml", ".txt")]
    assert len(templates) > 30
    begin = '{{- include "shopping-cart.prepare" . }}\n'
    assert [path.name for path in templates if not path.read_text().startswith(begin)] == []


def test_schema_rejects_unknown_keys_everywhere() -> None:
    schema = json.loads((tools.CHART / "values.schema.json").read_text())
    assert list(closed(schema)) == []


def test_services_have_the_same_values() -> None:
    """Every value of one service exists for the other, but for replicas: orders are read from the primary only."""
    product, order = values()["product"], values()["order"]
    assert product["database"].pop("readOnly")
    assert set(leaves(product)) == set(leaves(order))


def test_chart_and_project_versions_match() -> None:
    chart = yaml.safe_load((tools.CHART / "Chart.yaml").read_text())
    project = tomllib.loads((tools.ROOT / "pyproject.toml").read_text())
    assert chart["version"] == chart["appVersion"] == project["project"]["version"]
