"""The shop whose costs are measured: each service has a PostgreSQL server of its own, which counts what it writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.bench_shop import BenchShop, server_cpu
from local.databases import SUPERUSER
from local.postgres import Postgres
from local.settings import prepare

SERVICES = ("order", "product")

OPTIONS = {"track_wal_io_timing": "on", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
"""No checkpoint during a measurement, so that the number of full-page images in the log does not depend on the time."""


@dataclass(frozen=True)
class Written:
    """What a server has written so far."""

    wal_bytes: int
    transactions: int
    """Transactions that wrote something."""
    page_images: int
    """Full-page images in the log: each page has one after each checkpoint."""
    flushes: int
    flush_s: float
    size: int
    """Bytes of the database."""

    def since(self, before: "Written") -> dict[str, float]:
        """Returns what was written after another point in time, by name."""
        return {name: value - getattr(before, name) for name, value in vars(self).items()}


class ScalingShop(BenchShop):
    """One replica of each service, one edge, and two servers."""

    def __init__(self, state: Path, options: Mapping[str, str] | None = None) -> None:
        """Starts nothing yet. `options` are more settings of the servers."""
        settings = OPTIONS | dict(options or {})
        super().__init__(state, orders=1, edges=1, options=settings)
        self._product_state = state / "product-database"
        self._product_postgres = Postgres(self._product_state, options=settings, services=["product"])

    def start_databases(self) -> None:
        super().start_databases()
        prepare(self._product_state)
        self._stack.callback(self._product_postgres.remove)
        self._stack.callback(self._product_postgres.stop)
        self._product_postgres.start()

    def database(self, service: str) -> Postgres:
        return self._product_postgres if service == "product" else self.postgres

    def check(self) -> None:
        super().check()
        self._product_postgres.check()

    def spent(self) -> dict[str, float]:
        """Returns the CPU seconds so far, by process."""
        own = {name: self.cpu(name) for name in ("envoy", "order", "product", "sse")}
        return own | {f"{service}-db": server_cpu(self.database(service)) for service in SERVICES}

    def written(self, service: str) -> Written:
        """Returns what the server of a service has written. Counts of flushes and images may be 10 seconds late."""
        postgres = self.database(service)
        with psycopg.connect(postgres.conninfo(service, SUPERUSER), autocommit=True) as connection:
            row: Any = connection.execute(
                """
                SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                    (SELECT wal_fpi FROM pg_stat_wal), sum(fsyncs), sum(fsync_time) / 1000,
                    pg_database_size(current_database())
                FROM pg_stat_io WHERE object = 'wal'
                """
            ).fetchone()
        return Written(int(row[0]), row[1], int(row[2]), int(row[3]), float(row[4]), row[5])

    def checkpoint(self) -> None:
        """Makes a checkpoint of each server."""
        for service in SERVICES:
            conninfo = self.database(service).conninfo(service, SUPERUSER)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("CHECKPOINT")
