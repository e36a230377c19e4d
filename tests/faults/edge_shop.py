"""The shop that is broken on purpose with its edge: Envoy and the sidecar."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from psycopg.conninfo import make_conninfo

from bench.fleet import Command
from local.edge import EdgeSettings, write
from local.settings import LOOPBACK
from local.shop import envoy_command
from tests.faults.process import setting
from tests.faults.recorder import Pace, Target
from tests.faults.shop import FaultShop, Servers
from tests.support.oidc import Issuer, Provider
from tests.support.proxy import Proxy

PACE = Pace(interval=0.5, stretch=60, tailer=5)
"""A second counts as a minute, and Prometheus scrapes every 30 seconds."""

SCALED = (
    setting("order.jobs.backlog.BACKLOG_POLL_INTERVAL", 0.25),
    setting("order.jobs.expired_carts.PURGE_INTERVAL", 5),
    setting("order.jobs.expired_holds.HOLD_POLL_INTERVAL", 0.1),
    setting("order.jobs.retention.PRUNE_INTERVAL", 5),
    setting("order.live.tailer.POLL_INTERVAL", 0.2),
    setting("order.stock.HOLD_TTL", 5),
    setting("product.overdue_holds.OVERDUE_POLL_INTERVAL", 0.25),
    setting("runtime.server.READINESS_INTERVAL", 0.1),
    setting("runtime.server.UNREADY_DELAY", 0.5),
    setting("runtime.telemetry.event_loop.WINDOW", 0.5),
)
"""Intervals that are shorter, as time passes faster: as for the rules, where a tenth of a second is long enough."""


class EdgeShop(FaultShop):
    """The first replica of order is behind the edge. Clients call the other one directly."""

    def __init__(
        self,
        state: Path,
        servers: Servers,
        databases: Mapping[str, str],
        faults: Mapping[str, str],
        settings: Sequence[str],
        *,
        edge: Mapping[str, Any],
        variables: Mapping[str, str],
        issuer: Issuer | None = None,
    ) -> None:
        """Starts nothing yet: see `running`.

        Args:
            state: The folder of the logs.
            servers: The database servers.
            databases: A connection string for each service.
            faults: Faults of tests/faults/process.py, by the name of the process.
            settings: Settings of tests/faults/process.py.
            edge: Fields of EdgeSettings that differ from the defaults.
            variables: More environment variables of all processes.
            issuer: Makes the tokens; by default one whose keys are in a file.
        """
        super().__init__(state, servers, databases, faults, (*SCALED, *settings), more_ports=6)
        self._edge = edge
        self._variables = variables
        self.issuer = issuer or self.issuer
        self._listen, self._admin, self._http, self._grpc, sse, envoy = self.more_ports
        gateway = "shop-gateway-0"
        self.targets["sse"] = Target("gateway", gateway, sse, container="sse")
        self.targets["envoy"] = Target("gateway", gateway, envoy, "/stats/prometheus", "envoy")
        self.proxies["order-1 and its database"] = Proxy(servers.of["order"].postgres.port)
        self.proxies["edge and product"] = Proxy(self._product)
        self.proxies["edge and order"] = Proxy(self.orders[0])
        self.proxies["sidecar and order"] = Proxy(self.orders[0])

    @property
    def url(self) -> str:
        """The URL of the edge."""
        return f"{'https' if self._edge.get('tls') else 'http'}://{LOOPBACK}:{self._listen}"

    @property
    def credentials(self) -> Path:
        """The folder of the credential of the shop's processes."""
        return self._state / "credentials"

    @property
    def listens_at(self) -> tuple[str, int]:
        """Host and port of the edge."""
        return LOOPBACK, self._listen

    def edge_settings(self) -> EdgeSettings:
        fields: dict[str, Any] = {
            "files": self._state / "envoy",
            "listen": f"{LOOPBACK}:{self._listen}",
            "admin_port": self._admin,
            "metrics_port": self.targets["envoy"].port,
            "product": f"{LOOPBACK}:{self.proxies['edge and product'].port}",
            "order": f"{LOOPBACK}:{self.proxies['edge and order'].port}",
            "sse_http_port": self._http,
            "sse_grpc_port": self._grpc,
            "rate_limit": 0,
            **self._edge,
        }
        return EdgeSettings(**fields)

    def command(self, name: str) -> Command:
        if name == "envoy":
            return envoy_command(write(self.edge_settings())), self.environment()
        if name == "order-1":
            command, environment = super().command(name)
            port = self.proxies["order-1 and its database"].port
            return command, {**environment, "DATABASE_URL": make_conninfo(self.databases["order"], port=port)}
        if name != "sse":
            return super().command(name)
        settings = [each for each in self._settings if each.startswith(("sse.", "runtime."))]
        variables = {
            "GRPC_PORT": str(self._grpc),
            "HTTP_PORT": str(self._http),
            "METRICS_PORT": str(self.targets["sse"].port),
            "PRODUCT_TARGET": f"ipv4:{self.product}",
            "ORDER_TARGET": f"ipv4:{LOOPBACK}:{self.proxies['sidecar and order'].port}",
        }
        environment = self.environment(**self.access(), **variables)
        return [sys.executable, "-m", "tests.faults.process", "sse", *settings], environment

    def access(self) -> Mapping[str, str]:
        # Every five minutes, as by default.
        if isinstance(self.issuer, Provider):
            return self.issuer.variables(AUTH_JWKS_REFRESH=str(300 // PACE.stretch))
        return super().access()

    def environment(self, **more: str) -> Mapping[str, str]:
        return super().environment(**{**more, **self._variables})

    async def ready(self) -> None:
        await super().ready()
        async with httpx.AsyncClient(base_url=self.url, timeout=2, verify=False) as http:
            for path in ("/api/v1/products?pageSize=1", "/api/v1/orders?pageSize=1", "/api/v1/orders/x/status/stream"):
                while not await _served(http, path):
                    await asyncio.sleep(0.1)

    def stop(self) -> None:
        """Ends all processes at once: nobody needs what they do at their end."""
        for name in self.children:
            self.kill(name)
        super().stop()

    def stop_process(self, name: str) -> None:
        """Stops a process: it keeps its connections, and does nothing."""
        self.children[name].process.send_signal(signal.SIGSTOP)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["EdgeShop"]:
        async with super().running():
            yield self


async def _served(http: httpx.AsyncClient, path: str) -> bool:
    """Returns whether what is behind the edge has answered."""
    try:
        return (await http.get(path)).status_code < 500
    except httpx.HTTPError:
        return False
