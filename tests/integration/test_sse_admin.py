"""What the sidecar's pod asks of the Envoy next door, asked of a real one."""

import asyncio
import socket
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest

from sse.gateway.drain import drain, hook
from sse.gateway.warm import age, warm
from tests.support.edge import Edge, edge


def admin_port(running: Edge) -> int:
    return int(running.admin.rpartition(":")[2])


async def test_edge_is_warm_when_both_services_are_healthy() -> None:
    async with edge() as running:
        assert await asyncio.to_thread(warm, admin_port(running))


async def test_edge_is_not_warm_while_service_is_missing() -> None:
    settings: list[dict[str, Any]] = [{"product": "nowhere.invalid:50052"}, {"order": "127.0.0.1:1"}]
    for missing in settings:
        async with edge(**missing) as running:
            assert not await asyncio.to_thread(warm, admin_port(running))


def test_unreachable_edge_is_not_warm() -> None:
    assert not warm(1)


def test_the_age_is_that_of_the_first_process() -> None:
    first = age()
    time.sleep(0.1)
    assert 0 < first < age() < first + 5


async def test_drain_finishes_running_call_and_accepts_no_other() -> None:
    async with edge() as running, httpx.AsyncClient(base_url=running.url, timeout=10) as http:
        slow = asyncio.create_task(http.get("/api/v1/products/slow"))  # takes two seconds
        await asyncio.sleep(0.5)
        began = time.monotonic()
        draining = asyncio.create_task(asyncio.to_thread(drain, admin_port(running), 0.5, 10))
        await asyncio.sleep(0.2)
        assert (await http.get("/healthz")).status_code == 503
        still = await http.get("/api/v1/products/p1")
        assert (still.status_code, still.headers.get("connection")) == (200, "close")
        await draining
        assert 1 < time.monotonic() - began < 5
        assert (await slow).status_code == 200


async def test_drain_ends_after_its_grace() -> None:
    async with edge() as running, httpx.AsyncClient(base_url=running.url, timeout=10) as http:
        slow = asyncio.create_task(http.get("/api/v1/products/slow"))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await asyncio.to_thread(drain, admin_port(running), 0, 0.5)
        assert 0.4 < time.monotonic() - began < 1.5
        assert (await slow).status_code == 200


async def test_hanging_sidecar_does_not_drain_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kubelet runs the hook then too. What hangs is still connected to, and says nothing."""
    monkeypatch.setattr("sse.gateway.drain.HANG_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        async with edge() as running, httpx.AsyncClient(base_url=running.url) as http:
            ports = (hung.getsockname()[1], running.settings.sse_http_port)
            for port, status in zip(ports, (200, 503), strict=True):
                with suppress(SystemExit):
                    await asyncio.to_thread(hook, port, admin_port(running), 0, 0)
                assert (await http.get("/healthz")).status_code == status
