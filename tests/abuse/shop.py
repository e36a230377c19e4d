"""The shop that is abused: the real processes with the chart's limits, and what each may take of memory."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from bench.bench_shop import BenchShop
from local.edge import EdgeAuth, EdgeSettings
from local.settings import LOOPBACK, REPOSITORY
from tests.support.oidc import AUDIENCE, Provider

Shop = TypeVar("Shop", bound="AbuseShop")

PARTS = {"envoy": "envoy-0", "sse": "sse-0", "order": "order-0", "product": "product"}


def chart_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((REPOSITORY / "helm" / "shopping-cart" / "values.yaml").read_text())
    return values


def memory_limits(values: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that the container of each part may take."""
    resources = {
        "envoy": values["gateway"]["envoy"]["resources"],
        "sse": values["gateway"]["sse"]["resources"],
        "order": values["order"]["resources"],
        "product": values["product"]["resources"],
    }
    return {part: int(each["limits"]["memory"].removesuffix("Mi")) * 1024**2 for part, each in resources.items()}


class AbuseShop(BenchShop):
    """One of each part, told what the chart tells it. Requests have no limit, as if clients had many addresses."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, orders=1, edges=1)
        self.values = chart_values()
        self.limits = memory_limits(self.values)
        self._tls: Path | None = None

    @property
    def port(self) -> int:
        return self.edge_ports[0]

    @property
    def target(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def edge_settings(self, n: int) -> EdgeSettings:
        streams = self.values["gateway"]["sse"]["maxStreams"] + 5_000
        settings = super().edge_settings(n)
        return replace(settings, memory=self.limits["envoy"], max_streams=streams, tls=self._tls)

    def environment(self, **more: str) -> Mapping[str, str]:
        sse = self.values["gateway"]["sse"]
        streams = {
            "SSE_MAX_STREAMS": str(sse["maxStreams"]),
            "SSE_MAX_STREAMS_PER_CLIENT": str(sse["maxStreamsPerClient"]),
        }
        return {**super().environment(**more), **streams}

    async def fresh(self, tls: Path | None = None) -> None:
        """Starts a new Envoy and sidecar, and resets the peaks of order and product.

        So each case starts with unused memory.
        """
        self._tls = tls
        for name in ("envoy-0", "sse-0"):
            self.kill(name)
            self.launch(name)
        for name in PARTS.values():
            Path(f"/proc/{self._pid(name)}/clear_refs").write_text("5")  # VmHWM

    async def edge_stat(self, name: str) -> int:
        """Returns one of Envoy's counters; 0 if it does not exist yet."""
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{self.edge_settings(0).admin_port}") as http:
            text = (await http.get("/stats", params={"filter": f"^{name}$"})).text
        return int(text.rpartition(": ")[2] or 0)

    def peak(self, part: str) -> int:
        """The most bytes of memory that a part has had."""
        lines = Path(f"/proc/{self._pid(PARTS[part])}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def _pid(self, name: str) -> int:
        return self.children[name].process.pid


class TokenShop(AbuseShop):
    """The same with AUTH_MODE=jwt, and with the chart's limit of requests."""

    def __init__(self, state: Path, provider: Provider) -> None:
        super().__init__(state)
        self.provider = provider

    def edge_settings(self, n: int) -> EdgeSettings:
        limit = self.values["gateway"]["rateLimit"]
        auth = EdgeAuth(issuer=self.provider.url, audiences=(AUDIENCE,))
        settings = super().edge_settings(n)
        return replace(settings, auth=auth, rate_limit=limit["requestsPerSecond"], rate_burst=limit["burst"])

    def environment(self, **more: str) -> Mapping[str, str]:
        return super().environment(**self.provider.variables(), **more)


@contextmanager
def running(shop: Shop) -> Iterator[Shop]:
    """Runs a shop. It is gone with all its data at the end of the block."""
    os.chmod(shop.state, 0o755)  # PostgreSQL may run as somebody else
    try:
        shop.start()
        yield shop
    finally:
        shop.stop()
        shop.postgres.remove()
