"""A browser's own EventSource whose ticket expires: an open one goes on, and one that reconnects stops for good."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest

from local.edge import EdgeAuth, EdgeSettings
from runtime.access.config import AccessConfig
from runtime.config import Env
from sse.app import Running
from sse.streams.connections import CloseReason, StreamClosedError
from tests.support.access import credentials
from tests.support.browser import needs_chromium, visit
from tests.support.callers import GuardedShop, guarded_shop
from tests.support.edge import Edge, envoy, scratch
from tests.support.eventually import eventually
from tests.support.oidc import AUDIENCE, Provider, oidc_provider
from tests.support.secret_folder import SecretFolder
from tests.support.sidecar import sidecar_before

pytestmark = needs_chromium

# Resolves once the EventSource has given up, with all that it was told.
FOLLOW = """
(path) => new Promise((resolve) => {
  const seen = window.seen = [];
  const stream = new EventSource(path);
  stream.onmessage = ({ lastEventId, data }) => seen.push([lastEventId, JSON.parse(data).status]);
  stream.onerror = ({ lastEventId, data }) => {
    if (data) seen.push([lastEventId, JSON.parse(data).details[0].reason]);
    if (stream.readyState === EventSource.CLOSED) resolve(seen);
  };
})
"""


@dataclass
class Shop:
    """An order service with tokens, a sidecar in this process, and the real edge."""

    guarded: GuardedShop
    sidecar: Running
    edge: Edge
    keys: SecretFolder

    def stream_path(self, order_id: str, expires: float) -> str:
        """The path of an event stream with a ticket that expires then."""
        ticket = jwt.encode({"aud": "stream", "sub": order_id, "exp": int(expires)}, self.keys.read(), "HS256")
        return f"/api/orders/stream?order_id={order_id}&ticket={ticket}"

    def cut_streams(self) -> None:
        """Ends the open streams, as a sidecar that shuts down does. Browsers reconnect."""
        topics = self.sidecar.feed.topics
        topics.fail(topics.keys(), StreamClosedError(CloseReason.SHUTDOWN))


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def shop(order_database: str, provider: Provider, tmp_path: Path) -> AsyncIterator[Shop]:
    keys = SecretFolder(tmp_path / "keys")
    access = AccessConfig.from_env(Env(provider.variables(INTERNAL_CREDENTIALS=str(credentials()))))
    async with (
        guarded_shop(order_database, provider, TICKET_KEYS=str(keys.path)) as guarded,
        sidecar_before(f"ipv4:{guarded.shop.address}", access=access) as (sidecar, _),
    ):
        with scratch() as folder:
            settings = EdgeSettings(
                files=folder,
                product=guarded.shop.address,
                order=guarded.shop.address,
                sse_http_port=sidecar.http_port,
                sse_grpc_port=sidecar.grpc_port,
                auth=EdgeAuth(issuer=provider.url, audiences=(AUDIENCE,)),
            )
            running = envoy(settings)
            # In a thread: before Envoy is ready it checks the services' health, and they run in this event loop.
            edge = await asyncio.to_thread(running.__enter__)
            try:
                yield Shop(guarded, sidecar, edge, keys)
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)


async def test_event_source_with_expired_ticket_stops_for_good(shop: Shop) -> None:
    order = await shop.guarded.guest().create()
    async with visit(f"{shop.edge.url}/") as opened:
        expires = time.time() + 5

        async def seen(number: int) -> bool:
            return bool(await opened.page.evaluate(f"window.seen?.length === {number}"))

        following = asyncio.ensure_future(opened.page.evaluate(FOLLOW, shop.stream_path(order.id, expires)))
        await eventually(lambda: seen(1), 10)
        async with httpx.AsyncClient(base_url=shop.edge.url) as http:

            async def has_expired() -> bool:
                return (await http.head(shop.stream_path(order.id, expires))).status_code == 401

            await eventually(has_expired, 10)
        await shop.guarded.staff().process(order.id)
        await eventually(lambda: seen(2), 10)
        shop.cut_streams()
        told = await asyncio.wait_for(following, 30)
    assert told == [["1", "PLACED"], ["2", "PROCESSED"], ["ticket-expired", "TICKET_EXPIRED"]]
    paths = [each.url for each in opened.requests if "/api/orders/stream" in each.url]
    assert len(paths) == 3, "the stream, the reconnect that was told why, and the one that got 204"
    assert len(shop.sidecar.connections) == 0
