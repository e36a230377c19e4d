"""The shop that the benchmarks measure: the real processes, any number of order replicas and edges, on loopback."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from envoy.render import EdgeSettings, write
from local.children import Child, ChildError, run, start
from local.postgres import Postgres
from local.settings import LOOPBACK, REPOSITORY, free_ports, prepare
from local.shop import envoy_binary

READY_WITHIN = 60.0
"""Seconds until a process must answer."""

TICKS = os.sysconf("SC_CLK_TCK")


class BenchShop:
    """One PostgreSQL, one product service, and the order replicas and edges (an Envoy with its sidecar each)."""

    def __init__(self, state: Path, orders: int, edges: int) -> None:
        self._state = state
        self._stack = ExitStack()
        self.postgres = Postgres(state)
        product, *ports = free_ports(1 + orders + 4 * edges)
        self._product = product
        self._orders = ports[:orders]
        self._edges = [tuple(ports[orders + 4 * n : orders + 4 * n + 4]) for n in range(edges)]
        self.children: dict[str, Child] = {}
        self._spent: defaultdict[str, float] = defaultdict(float)

    @property
    def order_target(self) -> str:
        """All replicas of the order service, as gRPC takes them."""
        return "ipv4:" + ",".join(f"{LOOPBACK}:{port}" for port in self._orders)

    @property
    def edge_ports(self) -> list[int]:
        return [listen for listen, *_ in self._edges]

    def names(self, kind: str) -> list[str]:
        return [name for name in self.children if name.startswith(kind)]

    def start(self) -> None:
        """Raises ChildError if a part does not come up."""
        prepare(self._state)
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        for service in ("product", "order"):
            environment = self._environment(DATABASE_URL=self.postgres.service(service))
            run(f"migrate-{service}", [sys.executable, "-m", service, "migrate"], self._logs, environment, READY_WITHIN)
        names = ["product"]
        names += [f"order-{n}" for n in range(len(self._orders))]
        names += [f"{part}-{n}" for n in range(len(self._edges)) for part in ("sse", "envoy")]
        for name in names:
            self.launch(name)
            self._stack.callback(self._end, name)

    def stop(self) -> None:
        self._stack.close()

    def launch(self, name: str) -> None:
        """Starts a part, or starts it again."""
        part, _, number = name.partition("-")
        n = int(number or 0)
        command: list[str | Path]
        if part == "envoy":
            options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
            command = [envoy_binary(), "-c", self._write_edge(n), *options]
            environment = self._environment()
        else:
            command = [sys.executable, "-m", part, "run"]
            if part == "sse":
                environment = self._environment(GRPC_PORT=str(self._edges[n][3]), HTTP_PORT=str(self._edges[n][2]))
            else:
                port = self._product if part == "product" else self._orders[n]
                environment = self._environment(GRPC_PORT=str(port), DATABASE_URL=self.postgres.service(part))
        self.children[name] = start(name, command, self._logs, environment)

    def kill(self, name: str) -> None:
        """Ends a part as a crash would."""
        self._spent[name] += _cpu(self.children[name].process.pid)
        self.children[name].process.kill()
        self.children[name].process.wait()

    async def ready(self) -> None:
        """Waits until the order replicas serve and the edges answer. Raises ChildError if that takes too long."""
        async with asyncio.timeout(READY_WITHIN):
            for port in self._orders:
                await _serving(f"{LOOPBACK}:{port}", "shop.order.v1.OrderService")
            for port in self.edge_ports:
                await _serving(f"{LOOPBACK}:{port}", "sse")

    def check(self) -> None:
        """Raises ChildError if a part has ended."""
        self.postgres.check()
        for child in self.children.values():
            child.check()

    def cpu(self, kind: str) -> float:
        """CPU seconds that the parts of a kind have used, those that were killed included."""
        return sum(self._spent[name] + _cpu(self.children[name].process.pid) for name in self.names(kind))

    def resident(self, kind: str) -> int:
        """Bytes of memory that the parts of a kind hold."""
        return sum(_resident(self.children[name].process.pid) for name in self.names(kind))

    @property
    def _logs(self) -> Path:
        return self._state / "logs"

    def _end(self, name: str) -> None:
        self.children[name].stop(patience=10)

    def _environment(self, **more: str) -> Mapping[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(str(each) for each in (REPOSITORY, REPOSITORY / "proto")),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_HOST": LOOPBACK,
            "LOG_FORMAT": "text",
            "LOG_LEVEL": "WARNING",
            "SHUTDOWN_DELAY": "0",
            "SHUTDOWN_GRACE": "1",
            "PRODUCT_TARGET": f"dns:///{LOOPBACK}:{self._product}",
            "ORDER_TARGET": self.order_target,
            # All watchers come from one address here.
            "SSE_MAX_STREAMS_PER_CLIENT": "0",
            **more,
        }

    def _write_edge(self, n: int) -> Path:
        listen, admin, http, grpc_port = self._edges[n]
        return write(
            EdgeSettings(
                files=self._state / f"envoy-{n}",
                listen=f"{LOOPBACK}:{listen}",
                admin_port=admin,
                product=f"{LOOPBACK}:{self._product}",
                order=f"{LOOPBACK}:{self._orders[0]}",
                sse_http_port=http,
                sse_grpc_port=grpc_port,
            )
        )


async def _serving(address: str, service: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def bench_shop(orders: int = 1, edges: int = 1) -> Iterator[BenchShop]:
    """A shop that is gone with all its data at the end of the block."""
    state = Path(tempfile.mkdtemp(prefix="shop-bench-"))
    shop = BenchShop(state, orders, edges)
    try:
        shop.start()
        yield shop
    except (ChildError, TimeoutError):
        print(f"the logs are in {shop._logs}", file=sys.stderr)
        state = Path()
        raise
    finally:
        shop.stop()
        shop.postgres.remove()
        if state.name:
            shutil.rmtree(state, ignore_errors=True)
