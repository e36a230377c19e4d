"""docs/metrics.md has what the processes say, and the alerts and dashboards use nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring import rules
from tests.support import metrics_table
from tests.support.metrics import Scrape, scrape_envoy
from tests.support.shop import RunningShop, run_shop

DOCUMENTED = metrics_table.PAGE.read_text()
OF_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def used_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    with run_shop(tmp_path_factory.mktemp("used-shop"), metrics_table.ENVIRONMENT) as running:
        yield running


@pytest.fixture
async def seen(used_shop: RunningShop) -> dict[str, Scrape]:
    await metrics_table.use(used_shop)
    envoy = await scrape_envoy(used_shop.shop.metrics_ports["envoy"])
    return {**await metrics_table.read(used_shop), "envoy": envoy}


def queried() -> set[str]:
    """The metrics in the expressions of the rules and the dashboards."""
    expressions = [rule["expr"] for rule in rules.rules()]
    for dashboard in sorted(rules.FOLDER.glob("*.json")):
        found = json.loads(dashboard.read_text())
        expressions += [target["expr"] for panel in found["panels"] for target in panel.get("targets", [])]
        expressions += [variable["query"] for variable in found["templating"]["list"][1:]]
    return {name for each in expressions for name in rules.metrics(each)}


def documented_of_envoy() -> set[str]:
    return set(re.findall(r"^\| `(envoy_\w+)` \|", DOCUMENTED, re.MULTILINE))


async def test_metrics_are_exported_and_documented(seen: dict[str, Scrape]) -> None:
    envoy = seen.pop("envoy")
    assert metrics_table.table(seen) in DOCUMENTED, "run `python -m tests.support.metrics_table --write`"
    exported = OF_PROMETHEUS.union(*(each.names for each in (*seen.values(), envoy)))
    assert queried() - exported == set()
    assert documented_of_envoy() == {name.removesuffix("_bucket") for name in queried() if name.startswith("envoy_")}


def test_each_cause_is_documented() -> None:
    causes = {rule["labels"]["cause"] for rule in rules.rules() if rule.get("record") == "shop:cause"}
    paragraph = DOCUMENTED.partition("label `cause`:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", paragraph)) == causes


def test_queries_of_the_runbook_use_metrics_that_are_there() -> None:
    runbook = Path(metrics_table.PAGE.with_name("runbook.md")).read_text()
    named = set(re.findall(r"\b((?:shop|rpc|process|db_client|envoy)_\w+?)(?:_bucket|_count)?[{\[)]", runbook))
    assert named
    assert {name for name in named if f"`{name}`" not in DOCUMENTED} == set()
