"""A client of a release, through a new port-forward for each use, for tests that end no gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.support.release import Release
from tests.support.rest import Rest


@asynccontextmanager
async def client(release: Release) -> AsyncIterator[httpx.AsyncClient]:
    with release.namespace.forward(f"service/{release.component('gateway')}", 8080) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http


async def buy(release: Release) -> str:
    """Places an order and returns its id."""
    async with client(release) as http:
        rest = Rest(http)
        return str((await rest.order((await rest.product())["id"]))["id"])


async def serves(release: Release) -> bool:
    """Returns whether the edge of a release reaches both services."""
    async with client(release) as http:
        responses = [await http.get(f"/api/v1/{each}?pageSize=1") for each in ("products", "orders")]
    return all(each.status_code == 200 for each in responses)


async def sees(release: Release, order_id: str) -> bool:
    """Returns whether an order exists in a release."""
    async with client(release) as http:
        answer = await http.get(f"/api/v1/orders/{order_id}")
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200
