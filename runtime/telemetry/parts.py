"""The metrics of parts that several processes have. A part counts in plain numbers; here they get their names."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.access.gate import Gate
from runtime.batch import Batcher
from runtime.database import Database
from runtime.server import Server
from runtime.supervise import Job
from runtime.telemetry.metrics import Metrics, Number
from runtime.worker import Worker

POOL = "db.client.connection.pool.name"

WAIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""The upper bounds of the buckets of a wait for a connection, in seconds."""


def measure_databases(metrics: Metrics, *databases: Database) -> None:
    """Registers the metrics of databases: of their connections, and of the statements that they run."""
    _measure_connections(metrics, databases)
    _measure_statements(metrics, databases)


def _measure_connections(metrics: Metrics, databases: Sequence[Database]) -> None:
    pools = [each.pool for each in databases]

    def states() -> dict[tuple[str, ...], Number]:
        idle: dict[tuple[str, ...], Number] = {(pool.name, "idle"): pool.idle for pool in pools}
        return idle | {(pool.name, "used"): pool.used for pool in pools}

    metrics.gauge(
        "db.client.connection.count",
        states,
        "Connections to the database.",
        unit="{connection}",
        labels=[POOL, "db.client.connection.state"],
    )
    metrics.gauge(
        "db.client.connection.max",
        lambda: {pool.name: pool.size for pool in pools},
        "Connections to the database that there may be.",
        unit="{connection}",
        labels=[POOL],
    )
    metrics.gauge(
        "db.client.connection.pending_requests",
        lambda: {pool.name: pool.waiting for pool in pools},
        "Calls that wait for a connection.",
        unit="{request}",
        labels=[POOL],
    )
    metrics.counter(
        "db.client.connection.timeouts",
        lambda: {pool.name: pool.timeouts for pool in pools},
        "Calls that got no connection in time, or found the queue full.",
        unit="{timeout}",
        labels=[POOL],
    )
    waits = metrics.histogram(
        "db.client.connection.wait_time",
        "Waits for a connection, of those calls that had to wait.",
        WAIT_BOUNDS,
        labels=[POOL],
    )
    for pool in pools:
        pool.on_wait = waits.of(pool.name).record


def _measure_statements(metrics: Metrics, databases: Sequence[Database]) -> None:
    def by_pool(read: Callable[[Database], Mapping[str, Number]]) -> Callable[[], dict[tuple[str, ...], Number]]:
        # Each mapping is copied in one step, as statements go on meanwhile.
        return lambda: {
            (database.pool.name, key): value for database in databases for key, value in dict(read(database)).items()
        }

    metrics.counter(
        "shop.database.statements",
        by_pool(lambda database: database.statements),
        "Statements that ran, whether or not they succeeded.",
        unit="{statement}",
        labels=["pool", "statement"],
    )
    metrics.counter(
        "shop.database.statement.time",
        by_pool(lambda database: database.statement_time),
        "Time that statements took, without waits for a connection.",
        unit="s",
        labels=["pool", "statement"],
    )
    metrics.counter(
        "shop.database.errors",
        by_pool(lambda database: database.errors),
        "Statements that failed.",
        unit="{error}",
        labels=["pool", "error"],
    )

    def known(read: Callable[[Database], bool | None]) -> Callable[[], dict[str, Number]]:
        def states() -> dict[str, Number]:
            found = ((database.pool.name, read(database)) for database in databases)
            return {name: int(state) for name, state in found if state is not None}

        return states

    metrics.gauge(
        "shop.database.up",
        known(lambda database: database.readiness.is_up),
        "Whether the last readiness check reached the database (1) or not (0).",
        labels=["pool"],
    )
    metrics.gauge(
        "shop.database.writable",
        known(lambda database: database.readiness.is_writable),
        "Whether the database accepts writes and completes commits (1) or not (0).",
        labels=["pool"],
    )


def measure_batches(metrics: Metrics, *batchers: Batcher[Any, Any]) -> None:
    """Registers the metrics of batches, in which calls wait before they need a connection."""
    metrics.gauge(
        "shop.batch.waiting",
        lambda: {each.name.removesuffix(" batch"): each.waiting for each in batchers},
        "Calls whose statement waits or runs in a batch.",
        unit="{call}",
        labels=["batch"],
    )
    metrics.counter(
        "shop.batch.refusals",
        lambda: {each.name.removesuffix(" batch"): each.refused for each in batchers},
        "Calls that were refused because too many waited already.",
        unit="{call}",
        labels=["batch"],
    )


def measure_server(metrics: Metrics, server: Server, gate: Gate) -> None:
    """Registers the metrics of a server, and of the gate in front of it."""
    metrics.gauge("shop.server.ready", lambda: int(server.ready), "Whether the process is ready (1) or not (0).")
    metrics.counter(
        "shop.access.refusals",
        lambda: gate.refusals,
        "Calls that were not admitted.",
        unit="{call}",
        labels=["reason"],
    )
    if (keys := gate.keys) is None:
        return
    metrics.gauge(
        "shop.access.keys.age", lambda: keys.age, "Time since the keys of tokens were fetched last.", unit="s"
    )
    metrics.counter(
        "shop.access.key_fetches",
        lambda: {"ok": keys.loads, "failed": keys.failures},
        "Fetches of the keys of tokens.",
        unit="{fetch}",
        labels=["outcome"],
    )


def measure_jobs(metrics: Metrics, jobs: Sequence[Job], workers: Sequence[Worker] = ()) -> None:
    """Registers the metrics of background work.

    Args:
        metrics: Where they are registered.
        jobs: The work. `the relay` has the label `relay`.
        workers: Those whose steps the jobs run. Their names are the labels of their jobs.
    """

    def failures() -> Counter[str]:
        counts = Counter({job.name.removeprefix("the "): job.failures for job in jobs})
        for worker in workers:
            counts[worker.name] += worker.failures
        return counts

    metrics.counter(
        "shop.jobs.failures",
        failures,
        "Steps of background work that failed.",
        unit="{failure}",
        labels=["job.name"],
    )
    metrics.gauge(
        "shop.jobs.age",
        lambda: {worker.name: worker.age for worker in workers},
        "Time since a step of background work succeeded; if none did, since the process started.",
        unit="s",
        labels=["job.name"],
    )
    metrics.gauge(
        "shop.jobs.interval",
        lambda: {worker.name: worker.interval for worker in workers},
        "Time between two steps of background work that has nothing more to do.",
        unit="s",
        labels=["job.name"],
    )
