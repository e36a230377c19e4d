"""Where processes listen: IPv4, IPv6, or both."""

import asyncio
import socket
from contextlib import suppress

import httpx
import pytest

from local.settings import free_ports
from runtime.config import Env
from sse.app import serving
from sse.config import SidecarConfig
from tests.support.access import credentials
from tests.support.edge import edge
from tests.support.eventually import eventually

BOTH = {"127.0.0.1", "::1"}

pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


def config(http_port: int, grpc_port: int, **variables: str) -> SidecarConfig:
    own = {"HTTP_PORT": str(http_port), "GRPC_PORT": str(grpc_port), "INTERNAL_CREDENTIALS": str(credentials())}
    return SidecarConfig.from_env(Env({**own, "SHUTDOWN_DELAY": "0", **variables}))


async def reached(port: int) -> set[str]:
    """The loopback addresses at which something listens on a port."""
    found = set()
    for host in BOTH:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
            found.add(host)
    return found


@pytest.mark.parametrize(
    ("host", "expected"),
    [("::", BOTH), ("[::]", BOTH), ("::1", {"::1"}), ("[::1]", {"::1"}), ("127.0.0.1", {"127.0.0.1"})],
)
async def test_a_process_listens_where_it_is_told(host: str, expected: set[str]) -> None:
    """The sidecar has both kinds of ports; product and order have its gRPC server."""
    http_port, grpc_port = free_ports(2)
    async with serving(config(http_port, grpc_port, LISTEN_HOST=host)):
        assert await reached(grpc_port) == expected
        assert await reached(http_port) == expected


async def test_the_default_takes_ipv6_for_grpc_too() -> None:
    """So that probes reach a pod that has no other addresses; the event streams come by way of 127.0.0.1."""
    http_port, grpc_port = free_ports(2)
    async with serving(config(http_port, grpc_port)):
        assert await reached(grpc_port) == BOTH
        assert "127.0.0.1" in await reached(http_port)


async def test_the_edge_listens_on_both_at_the_ipv6_wildcard() -> None:
    async with edge(listen="[::]:8080") as running, httpx.AsyncClient() as client:
        port = running.url.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            answer = await client.get(f"http://{host}:{port}/api/v1/products/p1")
            assert answer.status_code == 200, host
        # Addresses are logged as they are, and not as IPv4 mapped into IPv6.
        await eventually(lambda: {line["client"] for line in running.access_log()} == BOTH, 5)
