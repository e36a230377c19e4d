"""The shop on CloudNativePG, with a load that goes on while something happens to a part of it."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import accumulate, pairwise
from typing import Any
from uuid import uuid4

import yaml

from tests.chart import tools
from tests.failover.loader import Load, load
from tests.failover.postgres import Effect, Postgres
from tests.failover.row import Evidence, Row, Seen
from tests.faults.check import NOTHING_WRONG, Connections, check
from tests.support.eventually import eventually as comes_true
from tests.support.invariants_order import settled
from tests.support.kube import Object, eventually, kubectl, namespace
from tests.support.release import COMPONENTS, Release, is_ready

STREAMS = 500
PRODUCTS = 20
BEFORE, AFTER = 4.0, 5.0
"""Seconds of load before a fault, and after everything is healthy again."""
MAX_CLOCK_SKEW = 2.0
"""Seconds by which the clocks of the nodes may differ."""
HEAL_TIMEOUT = 180.0
"""Seconds until everything has to be healthy."""
SETTLE_TIMEOUT = 60.0
"""Seconds until the outbox is empty and no stock is held, when no more clients arrive."""

FOLDER = tools.ROOT / "k8s" / "cnpg"
VALUES_FILES = ("--values", str(FOLDER / "values-cnpg.yaml"))
VALUES = {
    "product.replicas": "3",
    "order.replicas": "3",
    "gateway.replicas": "2",
    "demo.enabled": "false",
    # All streams come from one address.
    "gateway.sse.maxStreamsPerClient": "0",
}


_POOLERS = "cnpg.io/poolerName"


class World:
    """The release, its databases and the load."""

    def __init__(self, release: Release, load: Load) -> None:
        self.release = release
        self.databases = {service: Postgres(release.namespace, service) for service in ("product", "order")}
        self._load = load
        self._seen = Seen()
        self.evidence = Evidence()
        self._found = NOTHING_WRONG
        """What was wrong after the case before."""
        self._uses_poolers = False

    def prepare(self) -> None:
        """Fills the catalogue, and opens the streams."""
        host, _, port = self.release.edge.removeprefix("http://").partition(":")
        report = self._load.ask("prepare", host, int(port), PRODUCTS, STREAMS, timeout=180)
        assert report["live"] == STREAMS, report["streams"]
        self.evidence.add(report)

    async def case(
        self, name: str, fault: Callable[[], Effect], database: Postgres | None = None
    ) -> tuple[Row, list[str]]:
        """Lets something happen under load. Returns a row of the table, and what should never happen to a client.

        Args:
            name: The name of the case.
            fault: Lets it happen.
            database: The one that gets a new primary.
        """
        self._load.ask("start")
        try:
            moments = self._break(name, fault, database)
        finally:
            # Also after a failure: the next case begins without clients.
            report = self._load.ask("stop", timeout=150)
        began, ended = report["gap"]
        phases = _phases(began, ended, moments)
        row = await self._row(name, report, phases)
        print(f"{row}\n{report['messages']}\n{report['streams']}")
        return row, report["problems"]

    def _break(self, name: str, fault: Callable[[], Effect], database: Postgres | None) -> Sequence[float]:
        """Lets a fault happen, and waits until everything is healthy again. Returns the moments of a failover."""
        time.sleep(BEFORE)
        began = time.time()
        took_effect = fault()
        eventually(took_effect, HEAL_TIMEOUT, f"{name} had its effect")
        eventually(lambda: self._load.ask("progress")["age"] < 1, HEAL_TIMEOUT, "orders are placed")
        moments = database.moments(began) if database else ()
        eventually(self._healthy, HEAL_TIMEOUT, "everything is healthy again")
        print(f"{name}: healthy after {time.time() - began:.1f} s")
        time.sleep(AFTER)
        return moments

    async def _row(self, name: str, report: dict[str, Any], phases: Sequence[float | None]) -> Row:
        new = self.evidence.add(report)
        async with self._settled() as connections:
            # All orders of earlier cases, too: what this fault has done to them counts here.
            found = await check(name, self.evidence, connections, 0)
            logs = await _logs(connections)
        before, self._found = self._found, found
        missed, repeated = self._seen.count(report["seen"], logs)
        began, ended = report["gap"]
        chosen, promoted, standby, client = phases
        return Row(
            case=name,
            attempted=len(new.attempts),
            acknowledged=sum(bool(each.status) for each in new.attempts),
            lost=found.lost + found.leaked - before.lost - before.leaked,
            doubled=found.doubled + found.oversold - before.doubled - before.oversold,
            streams=report["live"],
            events=sum(len(logs.get(order_id, [])) for order_id in report["seen"]),
            missed=missed + report["streams"].get("given up", 0),
            repeated=repeated,
            seconds_without_writes=round(ended - began, 1),
            chosen_s=chosen,
            promoted_s=promoted,
            standby_s=standby,
            client_s=client,
            slowest_event_s=round(report["slowest_event"], 1),
            errors=report["errors"],
        )

    @asynccontextmanager
    async def _settled(self) -> AsyncIterator[Connections]:
        """Connects to the databases once nothing is under way in them."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            connections = {service: await enter(each.connection()) for service, each in self.databases.items()}
            orders, products = connections["order"], connections["product"]
            # If they never settle, what is left under way is counted as lost.
            with suppress(AssertionError):
                await comes_true(lambda: settled(orders, products), SETTLE_TIMEOUT, interval=0.5)
            yield connections

    # --- what happens to the shop

    def use_poolers(self) -> None:
        """Makes product and order use Poolers, if they do not yet."""
        if not self._uses_poolers:
            self.install_poolers()
            self._connect_to_poolers()
            self.release.until_ready(180)

    def _connect_to_poolers(self) -> None:
        self.release.upgrade(*VALUES_FILES, "--values", str(FOLDER / "values-pooler.yaml"))
        self._uses_poolers = True

    def install_poolers(self) -> None:
        """Installs a Pooler for each database, which nothing uses yet."""
        place = self.release.namespace
        for service in self.databases:
            place.kubectl("apply", "--filename", str(FOLDER / f"{service}-pooler.yaml"))
        for service in self.databases:
            pooler = f"deployment/{service}-db-pooler-rw"
            eventually(partial(place.kubectl, "get", pooler), 60, f"the operator has made the {pooler}")
            place.kubectl("rollout", "status", pooler, "--timeout=120s", timeout=130)

    def restart(self) -> Effect:
        """Restarts each Deployment, all at the same time. Product and order use the Poolers afterwards."""
        before = self._pods(*COMPONENTS)
        gateway = f"deployment/{self.release.component('gateway')}"
        self.release.namespace.kubectl("rollout", "restart", gateway)
        self._connect_to_poolers()
        return lambda: not before & self._pods(*COMPONENTS)

    def restart_poolers(self) -> Effect:
        """Deletes all pods of both Poolers at the same time."""
        before = self._uids(_POOLERS)
        self.release.namespace.kubectl("delete", "pods", "--selector", _POOLERS, "--wait=false")
        return lambda: not before & self._uids(_POOLERS)

    def drain(self) -> Effect:
        """Drains the nodes on which the gateway's pods are, one after the other.

        On a cluster of one node, no pod can move to another one. Then it evicts one after the other, and waits for the
        successor of each before the next one, as a drain does for the disruption budget.
        """
        before = self._pods("gateway")
        for pod in self.release.pods("gateway"):
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            others = [each for each in _schedulable_nodes() if each != node]
            selector = self.release.selector("gateway")
            try:
                if others:
                    options = ("--pod-selector", selector, "--ignore-daemonsets", "--delete-emptydir-data")
                    kubectl("drain", node, *options, "--timeout=150s", timeout=160)
                else:
                    kubectl("cordon", node)
                    eventually(partial(self.release.namespace.evict, name), 150, f"{name} may go")
            finally:
                kubectl("uncordon", node)
            self.release.rolled_out("gateway")
        return lambda: not before & self._pods("gateway")

    def _pods(self, *components: str) -> set[str]:
        """Returns the ids of the pods that are there, also of those on their way out."""
        return {uid for each in components for uid in self._uids(self.release.selector(each))}

    def _uids(self, selector: str) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.release.namespace.get("pods", selector)}

    def _healthy(self) -> bool:
        poolers = self.release.namespace.get("pods", _POOLERS)
        databases = all(each.healthy() for each in self.databases.values())
        return databases and self.release.is_ready() and all(is_ready(each) for each in poolers)


def _schedulable_nodes() -> list[str]:
    found = json.loads(kubectl("get", "nodes", "--output", "json"))["items"]
    tainted = {"NoSchedule", "NoExecute"}
    return [
        node["metadata"]["name"]
        for node in found
        if not any(taint["effect"] in tainted for taint in node["spec"].get("taints", []))
    ]


def _phases(began: float, ended: float, moments: Sequence[float]) -> list[float | None]:
    """Returns the parts into which moments divide a time, or no numbers if not all of them are in it."""
    if not moments or not all(began - MAX_CLOCK_SKEW <= each <= ended for each in moments[1:]):
        return [None] * 4
    times = list(accumulate((began, *moments, ended), max))
    return [round(later - earlier, 1) for earlier, later in pairwise(times)]


async def _logs(connections: Connections) -> dict[str, list[int]]:
    """Returns the versions of each order, by its id."""
    rows = await connections["order"].execute(
        "SELECT order_id::text, array_agg(version ORDER BY version) FROM order_event GROUP BY order_id"
    )
    return dict(await rows.fetchall())


@contextmanager
def world_on(image: str) -> Iterator[World]:
    """Installs the databases and the shop in a namespace of their own, and starts the load."""
    with namespace(f"shop-failover-{uuid4().hex[:6]}") as place:
        place.apply(*(_small(service) for service in ("product", "order")))
        release = Release(place, image, values=VALUES)
        release.install(*VALUES_FILES)
        databases = ("cluster/product-db", "cluster/order-db")
        place.kubectl("wait", "--for=condition=Ready", *databases, "--timeout=300s", timeout=310)
        release.until_ready(180)
        with load(release) as running:
            world = World(release, running)
            world.prepare()
            yield world


def _small(service: str) -> Object:
    """Returns a database as k8s/cnpg has it, with requests for a small machine."""
    cluster: Object = yaml.safe_load((FOLDER / f"{service}-db.yaml").read_text())
    cluster["spec"]["resources"]["requests"]["cpu"] = "20m"
    return cluster
