"""A simulation of orders: Envoy, event loops, batches, pools, two databases, and the lock of a bestseller's row.

The steps of an order are those of `order/checkout.py`, and of the relay after its response. What the steps cost comes
from measurements: see `bench.costs`.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import simpy

from bench.queueing import Batcher, Host, Log, Pool, Process, Refused, Steps
from bench.result import quantile
from order.jobs.relay import BATCH_SIZE, RELAY_POLL_INTERVAL
from order.live.tailer import MIN_READ_INTERVAL
from runtime.batch import MAX_BATCH_SIZE, MAX_RUNNING, QUIET_TURNS, STALLED_BATCH_DELAY

PROCESSES = ("envoy", "order", "product", "order-db", "product-db", "client")
"""Whose CPU time is simulated. The client shares the machine with the others where there is one machine for all."""

PARTS: Mapping[str, Mapping[str, float]] = {
    "envoy": {"request": 0.5, "response": 0.5},
    "client": {"request": 0.5, "response": 0.5},
    "order": {"request": 0.35, "reserved": 0.15, "response": 0.25, "relay": 0.25},
    "product": {"reserve": 0.7, "confirm": 0.3},
    "order-db": {"insert": 0.6, "notify": 0.0, "claim": 0.2, "delete": 0.2},
    "product-db": {"reserve": 0.7, "confirm": 0.3},
}
"""How the cost of an order in each process is divided among the steps. Only the sum is measured."""

STATEMENTS = 2
"""Statements of the order database for a batch of orders: the insert, and the tailer's NOTIFY. The relay's are few."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a process."""

    call: float
    """For each order."""
    batch: float
    """For each statement of the process's database, however many orders share it."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the simulation takes from measurements. Times are in seconds."""

    costs: Mapping[str, Cost]
    """By process: see PROCESSES."""
    flush: Mapping[str, float]
    """The mean time of a flush of the write-ahead log, by database: `order-db`, `product-db`."""
    wait: float = 0.0
    """What an order alone takes beyond its CPU time and flushes: wake-ups, and the way between processes."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How many there are of each, and how they are configured."""

    gateways: int = 1
    gateway_cores: int = 2
    orders: int = 1
    products: int = 1
    database_cores: int = 8
    """Of each of the two databases."""
    shared_cores: int = 0
    """If not 0, all processes and the client share one machine with so many processors."""
    order_pool: int = 6
    stock_pool: int = 4
    max_waiting: int = 200
    max_batch: int = MAX_BATCH_SIZE
    replication: float = 0.0
    """Seconds that a commit waits for the synchronous standby, after its own flush."""
    hot_share: float = 0.0
    """The share of the orders that want one product."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Either orders at random times (`rate` a second), or `connections` that pause for `think` seconds on average."""

    rate: float = 0.0
    connections: int = 0
    think: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What came out. Delays are in milliseconds."""

    rate: float
    """Orders placed a second."""
    p50_ms: float
    p99_ms: float
    refused: int
    """Orders that were refused because a queue was full."""
    cpu_s: Mapping[str, float]
    """CPU seconds for 1,000 orders, by process."""
    use: Mapping[str, float]
    """The busiest of each kind of machine: the share of its processors that worked."""
    batch: float
    """Orders that share a call to product and its statement, on average."""
    statements: float
    """Statements of the order database for one order."""


@dataclass
class _Counts:
    placed: int = 0
    refused: int = 0
    delays: list[float] = field(default_factory=list[float])


class _Database:
    def __init__(self, env: simpy.Environment, host: Host, name: str, log: Log) -> None:
        self.host, self.name, self.log = host, name, log
        self.hot_row = simpy.Resource(env, 1)
        self.statements = 0


class _OrderPod:
    """A replica of the order service, with its queue of messages for the relay."""

    def __init__(self, shop: "Shop", host: Host, topology: Topology) -> None:
        env = shop.env
        self._shop = shop
        self.loop = Process(env, host, "order")
        self.pool = Pool(env, topology.order_pool, topology.max_waiting)

        def batcher(run: Callable[[list[bool]], Steps]) -> Batcher[bool]:
            return Batcher(
                env,
                run,
                self.loop.turn,
                max_size=topology.max_batch,
                max_running=MAX_RUNNING,
                max_waiting=topology.max_waiting,
                stall=STALLED_BATCH_DELAY,
                quiet_turns=QUIET_TURNS,
            )

        self.reserves = batcher(lambda batch: shop.reserve(self, batch))
        self.inserts = batcher(lambda batch: shop.insert(self, batch))
        self.outbox = 0
        self._committed = env.event()
        env.process(self._relay())
        env.process(self._tailer())

    def committed(self, orders: int) -> None:
        """Leaves messages for the relay, and wakes the tailer."""
        self.outbox += orders
        if not self._committed.triggered:
            self._committed.succeed()

    def _relay(self) -> Steps:
        """Polls the outbox. Only a cancelled order wakes the relay."""
        claimed = 0
        while True:
            if claimed < BATCH_SIZE:
                yield self._shop.env.timeout(self._shop.vary_interval(RELAY_POLL_INTERVAL))
            claimed = min(self.outbox, BATCH_SIZE)
            self.outbox -= claimed
            if claimed:
                yield from self._shop.confirm(self, claimed)

    def _tailer(self) -> Steps:
        """Tells the other processes of commits, with a pause between two hints."""
        while True:
            yield self._committed
            self._committed = self._shop.env.event()
            yield from self._shop.notify(self)
            yield self._shop.env.timeout(MIN_READ_INTERVAL)


class Shop:
    """The simulated shop."""

    def __init__(self, env: simpy.Environment, parameters: Parameters, topology: Topology, seed: int) -> None:
        self.env = env
        self.counts = _Counts()
        self._random = random.Random(seed)
        self._p, self._t = parameters, topology
        self._shared = Host(env, topology.shared_cores) if topology.shared_cores else None
        self.hosts: dict[str, list[Host]] = {
            "gateway": [],
            "order": [],
            "product": [],
            "order-db": [],
            "product-db": [],
        }
        self.order_db = self._database("order-db")
        self._product_db = self._database("product-db")
        self.order_pods = [_OrderPod(self, self._host("order", 1), topology) for _ in range(topology.orders)]
        self._product_pods = [
            (Process(env, self._host("product", 1), "product"), Pool(env, topology.stock_pool, topology.max_waiting))
            for _ in range(topology.products)
        ]
        self._gateways = [
            Process(env, self._host("gateway", topology.gateway_cores), "envoy", topology.gateway_cores)
            for _ in range(topology.gateways)
        ]
        self._client = Process(env, self._shared, "client") if self._shared else None
        self._next_product = itertools.cycle(self._product_pods)
        self._next_order = itertools.cycle(self.order_pods)
        self._next_gateway = itertools.cycle(self._gateways)

    def _host(self, kind: str, cores: int) -> Host:
        host = self._shared or Host(self.env, cores)
        self.hosts[kind].append(host)
        return host

    def _database(self, name: str) -> _Database:
        mean = self._p.flush[name]
        log = Log(self.env, lambda: self._vary(mean), self._t.replication)
        return _Database(self.env, self._host(name, self._t.database_cores), name, log)

    def _vary(self, mean: float) -> float:
        """Returns a time with this mean: half of it is constant, the other half is exponential."""
        return mean / 2 + self._random.expovariate(2 / mean) if mean else 0.0

    def _cost(self, process: str, part: str, calls: int, *, batches: int = 0) -> float:
        cost = self._p.costs[process]
        return self._vary(cost.call * PARTS[process][part] * calls + cost.batch * batches)

    def order(self) -> Steps:
        """One order, from the client's request to its response."""
        start = self.env.now
        gateway, pod = next(self._next_gateway), next(self._next_order)
        if self._client:
            yield from self._client.work(self._cost("client", "request", 1))
        yield from gateway.work(self._cost("envoy", "request", 1))
        if self._p.wait:
            yield self.env.timeout(self._p.wait)
        yield from pod.loop.work(self._cost("order", "request", 1))
        try:
            yield from pod.reserves.call(self._random.random() < self._t.hot_share)
            yield from pod.loop.work(self._cost("order", "reserved", 1))
            yield from pod.inserts.call(False)
        except Refused:
            self.counts.refused += 1
            return
        yield from pod.loop.work(self._cost("order", "response", 1))
        yield from gateway.work(self._cost("envoy", "response", 1))
        if self._client:
            yield from self._client.work(self._cost("client", "response", 1))
        self.counts.placed += 1
        self.counts.delays.append(self.env.now - start)

    def _statement(self, database: _Database, part: str, calls: int, *, waits: bool, hot: bool = False) -> Steps:
        """Runs a statement and its commit. It holds the row of the bestseller, if it needs it, until the commit."""
        work = self._cost(database.name, part, calls, batches=1)
        database.statements += 1
        if not hot:
            yield from database.host.work(database.name, work)
            if waits:
                yield from database.log.commit()
            return
        with database.hot_row.request() as locked:
            yield locked
            yield from database.host.work(database.name, work)
            yield from database.log.commit()

    def reserve(self, pod: _OrderPod, batch: Sequence[bool]) -> Steps:
        """One call to product for a batch of orders; `batch` says which of them want the bestseller."""
        yield from pod.loop.work(self._vary(self._p.costs["order"].batch / 2))
        process, pool = next(self._next_product)
        yield from process.work(self._cost("product", "reserve", len(batch), batches=1))
        statement = self._statement(self._product_db, "reserve", len(batch), waits=True, hot=any(batch))
        yield from pool.run(statement)

    def insert(self, pod: _OrderPod, batch: Sequence[bool]) -> Steps:
        """One statement for a batch of new orders."""
        yield from pod.loop.work(self._vary(self._p.costs["order"].batch / 2))
        yield from pod.pool.run(self._statement(self.order_db, "insert", len(batch), waits=True))
        pod.committed(len(batch))
        # The responses leave together: waking up costs the gateway something for all of them.
        yield from next(self._next_gateway).work(self._vary(self._p.costs["envoy"].batch))

    def confirm(self, pod: _OrderPod, messages: int) -> Steps:
        """One step of the relay. Claims and deletions do not wait for the disk."""
        yield from pod.pool.run(self._statement(self.order_db, "claim", messages, waits=False))
        yield from pod.loop.work(self._cost("order", "relay", messages) + 2 * self._p.costs["order"].batch)
        process, pool = next(self._next_product)
        yield from process.work(self._cost("product", "confirm", messages, batches=1))
        yield from pool.run(self._statement(self._product_db, "confirm", messages, waits=True))
        yield from pod.pool.run(self._statement(self.order_db, "delete", messages, waits=False))

    def notify(self, pod: _OrderPod) -> Steps:
        """The tailer's hint to other processes: a transaction on its own connection, which waits for the disk."""
        yield from pod.loop.work(self._vary(self._p.costs["order"].batch))
        yield from self._statement(self.order_db, "notify", 0, waits=True)

    def vary_interval(self, seconds: float) -> float:
        """Returns an interval of a background job, which varies a little."""
        return seconds * self._random.uniform(0.8, 1.2)

    def arrivals(self, load: Load) -> Steps:
        """Orders at random times, which do not depend on how the shop does."""
        while True:
            yield self.env.timeout(self._random.expovariate(load.rate))
            self.env.process(self.order())

    def connection(self, load: Load) -> Steps:
        """A client that places one order after another."""
        while True:
            if load.think:
                yield self.env.timeout(self._random.expovariate(1 / load.think))
            yield from self.order()

    def busy(self) -> dict[str, float]:
        """Returns the seconds of work so far, by process."""
        total: dict[str, float] = defaultdict(float)
        for host in {id(each): each for hosts in self.hosts.values() for each in hosts}.values():
            for name, seconds in host.busy.items():
                total[name] += seconds
        return total


def simulate(
    parameters: Parameters, topology: Topology, load: Load, *, seconds: float, warm_up: float = 1.0, seed: int = 1
) -> Prediction:
    """Runs the shop for some simulated seconds after a warm-up."""
    env = simpy.Environment()
    shop = Shop(env, parameters, topology, seed)
    if load.rate:
        env.process(shop.arrivals(load))
    for _ in range(load.connections):
        env.process(shop.connection(load))
    env.run(until=warm_up)
    shop.counts = _Counts()
    before = shop.busy()
    host_before = {kind: [sum(host.busy.values()) for host in hosts] for kind, hosts in shop.hosts.items()}
    batches = sum(pod.reserves.batches for pod in shop.order_pods)
    statements = shop.order_db.statements
    calls = sum(pod.reserves.calls for pod in shop.order_pods)
    env.run(until=warm_up + seconds)
    counts = shop.counts
    spent = shop.busy()
    delays = sorted(counts.delays)
    placed = max(counts.placed, 1)
    batches = sum(pod.reserves.batches for pod in shop.order_pods) - batches
    return Prediction(
        rate=counts.placed / seconds,
        p50_ms=quantile(delays, 0.5),
        p99_ms=quantile(delays, 0.99),
        refused=counts.refused,
        cpu_s={name: 1000 * (spent[name] - before[name]) / placed for name in PROCESSES},
        use={
            kind: max(
                (sum(host.busy.values()) - old) / seconds / host.cores
                for host, old in zip(hosts, host_before[kind], strict=True)
            )
            for kind, hosts in shop.hosts.items()
        },
        statements=(shop.order_db.statements - statements) / placed,
        batch=(sum(pod.reserves.calls for pod in shop.order_pods) - calls) / max(batches, 1),
    )
