"""Who may follow an order as an event stream: the order service decides by what the client has sent."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from shop.order.v1 import status_feed_pb2

from runtime.access.caller_hash import caller_hash
from runtime.access.config import AccessConfig
from runtime.config import Env
from runtime.errors import unauthenticated, unavailable
from sse.config import Limits, Timing
from tests.support.access import credential, credentials
from tests.support.callers import GuardedShop, guarded_shop
from tests.support.eventually import eventually
from tests.support.logs import written_log
from tests.support.oidc import Provider, oidc_provider
from tests.support.product import UNKNOWN
from tests.support.rest import Rest
from tests.support.secret_folder import SecretFolder
from tests.support.sidecar import EVENTS, Blocks, sidecar, sidecar_before

UNAUTHENTICATED, NOT_FOUND = 16, 5


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
def keys(tmp_path: Path) -> SecretFolder:
    return SecretFolder(tmp_path / "keys")


def access(provider: Provider) -> AccessConfig:
    return AccessConfig.from_env(Env(provider.variables(INTERNAL_CREDENTIALS=str(credentials()))))


@dataclass
class Followed:
    """A real order service with a real sidecar before it."""

    guarded: GuardedShop
    http: httpx.AsyncClient
    keys: SecretFolder

    async def first_block(self, order_id: str, query: str = "", **headers: str) -> str:
        path = f"/api/orders/stream?order_id={order_id}{query}"
        async with self.http.stream("GET", path, headers=EVENTS | headers) as response:
            assert response.status_code == 200, await response.aread()
            async for text in response.aiter_text():
                return text
        return ""

    async def refused(self, order_id: str, query: str = "", **headers: str) -> httpx.Response:
        return await self.http.get(f"/api/orders/stream?order_id={order_id}{query}", headers=EVENTS | headers)

    def expired(self, order_id: str) -> str:
        claims = {"aud": "stream", "sub": order_id, "exp": int(time.time()) - 1}
        return jwt.encode(claims, self.keys.read(), "HS256")


@pytest.fixture
async def shop(order_database: str, provider: Provider, keys: SecretFolder) -> AsyncIterator[Followed]:
    async with (
        guarded_shop(order_database, provider, TICKET_KEYS=str(keys.path)) as guarded,
        sidecar_before(f"ipv4:{guarded.shop.address}", access=access(provider)) as (_, http),
    ):
        yield Followed(guarded, http, keys)


async def test_log_has_the_hash_of_the_caller(shop: Followed) -> None:
    (secret,) = credential().secrets
    order = await shop.guarded.customer("ada").create()
    guests = await shop.guarded.guest().create()
    ticket = (await shop.guarded.guest().with_ticket(guests.ticket).ticket(guests.id)).ticket
    with written_log("shop.streams") as log:
        await shop.first_block(order.id, authorization=f"Bearer {shop.guarded.provider.token('ada')}")
        await shop.first_block(guests.id, f"&ticket={ticket}")
        await shop.refused(order.id, authorization="Bearer nonsense")

        async def ended() -> bool:
            return len(log.lines) == 3

        await eventually(ended)
    assert {(line["result"], line.get("caller")) for line in log.lines} == {
        ("client", caller_hash("ada", secret)),
        ("client", "guest"),
        ("UNAUTHENTICATED", None),
    }


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_owner_staff_and_tickets_follow(shop: Followed, provider: Provider) -> None:
    ada = shop.guarded.customer("ada")
    hers, guests = await ada.create(), await shop.guarded.guest().create()
    stream = (await ada.ticket(hers.id)).ticket
    for order_id, query, headers in (
        (hers.id, "", bearer(provider.token("ada"))),
        (hers.id, "", bearer(provider.token("sam", staff=True))),
        (hers.id, f"&ticket={stream}", {}),
        (hers.id, "", {"order-ticket": stream}),
        (guests.id, "", {"order-ticket": guests.ticket}),
        (guests.id, "", bearer(provider.token("sam", staff=True))),
    ):
        assert (await shop.first_block(order_id, query, **headers)).startswith("id: 1\n")
    by_path = await shop.http.head(f"/api/v1/orders/{hers.id}/status/stream?ticket={stream}")
    assert by_path.status_code == 200


async def test_nothing_sent_is_401_with_challenge(shop: Followed) -> None:
    order = await shop.guarded.guest().create()
    answer = await shop.refused(order.id)
    Rest.refused(answer, 401, UNAUTHENTICATED, reason="TOKEN_REQUIRED")
    assert answer.headers["www-authenticate"] == 'Bearer realm="shop"'
    missing = await shop.refused(UNKNOWN)
    assert (missing.status_code, missing.content) == (answer.status_code, answer.content)


async def test_what_is_not_accepted_is_401(shop: Followed, provider: Provider) -> None:
    order = await shop.guarded.guest().create()
    other = await shop.guarded.guest().create()
    for reason, query, headers in (
        ("TOKEN_INVALID", "", bearer("x")),
        ("TOKEN_INVALID", "", {"Authorization": "Basic YTpi"}),
        ("TOKEN_INVALID", "", bearer("caf\u00e9")),
        ("TOKEN_EXPIRED", "", bearer(provider.token(ttl=-3600))),
        ("TICKET_INVALID", "&ticket=x", {}),
        ("TICKET_INVALID", "&ticket=%ff%00", {}),
        ("TICKET_INVALID", f"&ticket={order.ticket}", {}),
        ("TICKET_INVALID", "", {"order-ticket": "x"}),
        ("TICKET_EXPIRED", f"&ticket={shop.expired(order.id)}", {}),
    ):
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        path = f"/api/orders/stream?order_id={order.id}{query}"
        answer = await shop.http.get(path, headers=[(b"accept", b"text/event-stream"), *encoded])
        Rest.refused(answer, 401, UNAUTHENTICATED, reason=reason)
        invalid = ', error="invalid_token"' if reason.startswith("TOKEN") else ""
        assert answer.headers["www-authenticate"] == f'Bearer realm="shop"{invalid}'
    answer = await shop.refused(order.id, **{"order-ticket": other.ticket or ""})
    Rest.refused(answer, 404, NOT_FOUND, reason="ORDER_NOT_FOUND")


async def test_another_customers_order_looks_missing(shop: Followed, provider: Provider) -> None:
    hers = await shop.guarded.customer("ada").create()
    eve = bearer(provider.token("eve"))
    theirs, missing = await shop.refused(hers.id, **eve), await shop.refused(UNKNOWN, **eve)
    for each in (theirs, missing):
        del each.headers["date"]
    assert (theirs.status_code, theirs.headers) == (missing.status_code, missing.headers)
    assert theirs.text.replace(hers.id, UNKNOWN) == missing.text
    staff = await shop.refused(UNKNOWN, **bearer(provider.token("sam", staff=True)))
    assert staff.text == missing.text


@pytest.mark.parametrize("query", ["&ticket=a&ticket=b", "&ticket=&ticket=b"])
async def test_several_tickets_are_400(shop: Followed, query: str) -> None:
    order = await shop.guarded.guest().create()
    Rest.refused(await shop.refused(order.id, query), 400, 3, field="ticket")


async def test_reconnect_with_expired_ticket_ends_for_good(shop: Followed) -> None:
    """A browser shows no response of a 401. So it gets an event, and then a 204, after which it stops."""
    order = await shop.guarded.guest().create()
    query = f"&ticket={shop.expired(order.id)}"
    answer = await shop.http.get(
        f"/api/orders/stream?order_id={order.id}{query}", headers={**EVENTS, "Last-Event-ID": "1"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    first, second, data, *rest = answer.text.split("\n")
    assert (first, second, rest) == ("id: ticket-expired", "event: error", ["", ""])
    status = json.loads(data.removeprefix("data: "))
    assert (status["code"], status["details"][0]["reason"]) == (UNAUTHENTICATED, "TICKET_EXPIRED")
    last = await shop.http.get(
        f"/api/orders/stream?order_id={order.id}{query}", headers={**EVENTS, "Last-Event-ID": "ticket-expired"}
    )
    assert (last.status_code, last.content) == (204, b"")
    renewed = f"&ticket={(await shop.guarded.staff().ticket(order.id)).ticket}"
    path = f"/api/orders/stream?order_id={order.id}{renewed}"
    async with shop.http.stream("GET", path, headers={**EVENTS, "Last-Event-ID": "ticket-expired"}) as response:
        assert (await Blocks(response).next()).startswith("id: 1\n")
    polyfill = await shop.refused(order.id, f"{query}&lastEventId=1")
    assert polyfill.text.startswith("id: ticket-expired\n")
    for reason, sent in (("TICKET_INVALID", "&ticket=x"), ("TOKEN_REQUIRED", "")):
        answer = await shop.refused(order.id, f"{sent}&lastEventId=1")
        Rest.refused(answer, 401, UNAUTHENTICATED, reason=reason)


async def test_open_stream_outlives_its_ticket(order_database: str, provider: Provider, keys: SecretFolder) -> None:
    async with (
        guarded_shop(order_database, provider, TICKET_KEYS=str(keys.path)) as guarded,
        sidecar_before(f"ipv4:{guarded.shop.address}", access=access(provider)) as (_, http),
    ):
        order = await guarded.guest().create()
        claims = {"aud": "stream", "sub": order.id, "exp": int(time.time()) + 5}
        ticket = jwt.encode(claims, keys.read(), "HS256")
        path = f"/api/orders/stream?order_id={order.id}&ticket={ticket}"
        async with http.stream("GET", path, headers=EVENTS) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "id: 1"

            async def has_expired() -> bool:
                return (await http.head(path)).status_code == 401

            await eventually(has_expired, 15)
            await guarded.staff().process(order.id)
            async with asyncio.timeout(5):
                while await anext(lines) != "id: 2":
                    pass


async def test_tickets_and_tokens_are_not_logged(
    shop: Followed, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    order = await shop.guarded.guest().create()
    ticket, late, token = "TICKET-IN-URL", shop.expired(order.id), provider.token("ada")
    for path, headers in (
        (f"/api/orders/stream?order_id={order.id}&ticket={ticket}", {}),
        (f"/api/orders/stream?order_id={order.id}&ticket={late}", {}),
        (f"/api/orders/stream?order_id={order.id}&ticket={ticket}&ticket={late}", {}),
        (f"/api/orders/stream?order_id={order.id}", bearer(token)),
        (f"/nowhere?ticket={ticket}", {}),
    ):
        await shop.http.get(path, headers=headers)
    # What no HTTP client sends, and Envoy would not pass on.
    port = shop.http.base_url.port
    for line in (f"GET /api/orders/stream?ticket={ticket} HTTP/9.9", f"GET /a?ticket={ticket}\x01 b HTTP/1.1", ticket):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(connection, f"{line}\r\nHost: shop\r\n\r\n".encode())
            async with asyncio.timeout(5):
                answer = await loop.sock_recv(connection, 65_536)
            assert answer.startswith(b"HTTP/1.")
    text = "\n".join(
        f"{record.name} {record.getMessage()} {record.exc_text or ''} {vars(record)}"
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    )
    assert "UNAUTHENTICATED" in text, "the log is there"
    for secret in (ticket, late, token, order.ticket):
        assert secret
        assert secret not in text


async def test_sidecar_sends_what_the_client_sent(provider: Provider) -> None:
    async with sidecar(access=access(provider)) as running:
        order_id = running.logs.place("CANCELLED")
        headers = [("Authorization", "Bearer a"), ("Authorization", "b"), ("order-ticket", "c"), ("order-ticket", "d")]
        path = f"/api/orders/stream?order_id={order_id.upper()}&ticket=e%20f"
        assert (await running.http.get(path, headers=headers)).status_code == 200
        (sent,) = running.pods[0].feed.authorized
        assert sent == status_feed_pb2.AuthorizeStreamRequest(
            order_id=order_id, authorization=["Bearer a", "b"], order_ticket=["c", "d"], stream_ticket="e f"
        )


async def test_order_service_is_not_asked_without_tokens() -> None:
    async with sidecar() as running:
        order_id = running.logs.place("CANCELLED")
        assert (await running.http.get(f"/api/orders/stream?order_id={order_id}&ticket=x")).status_code == 200
        assert running.pods[0].feed.authorized == []


async def test_slow_or_refusing_order_service_is_503(provider: Provider) -> None:
    """A browser is told to come back; others get a 503."""
    async with sidecar(access=access(provider), timing=Timing(authorization_timeout=2)) as running:
        order_id = running.logs.place("PLACED")
        path = f"/api/orders/stream?order_id={order_id}"
        hung = 0

        async def hang(*_: Any) -> Any:
            nonlocal hung
            hung += 1
            await asyncio.Event().wait()

        async def without_credential(_: Any, context: Any) -> Any:
            error = unauthenticated("CREDENTIAL_REQUIRED", "this method is for the shop's own processes only")
            await context.abort(error.code, error.text, error.trailers())

        async def without_keys(_: Any, context: Any) -> Any:
            error = unavailable("the keys of tokens are unavailable")
            await context.abort(error.code, error.text, error.trailers())

        async def broken(_: Any, context: Any) -> Any:
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

        for authorize in (hang, without_credential, without_keys, broken):
            running.pods[0].feed.authorize = authorize
            answer = await running.http.get(path)
            Rest.refused(answer, 503, 14)
            assert int(answer.headers["retry-after"]) >= 1
            browser = await running.http.get(path, headers=EVENTS)
            assert (browser.status_code, browser.text[:7]) == (200, "retry: ")
        assert hung == 2
        assert len(running.sidecar.connections) == 0


async def test_few_clients_are_asked_about_at_once(provider: Provider) -> None:
    async with sidecar(
        access=access(provider), limits=Limits(authorizations=3, authorizations_per_address=20)
    ) as running:
        order_id = running.logs.place("CANCELLED")
        active, most, go = 0, 0, asyncio.Event()

        async def authorize(*_: Any) -> status_feed_pb2.AuthorizeStreamResponse:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await go.wait()
            active -= 1
            return status_feed_pb2.AuthorizeStreamResponse()

        running.pods[0].feed.authorize = authorize
        calls = [asyncio.create_task(running.http.get(f"/api/orders/stream?order_id={order_id}")) for _ in range(20)]
        await eventually(lambda: active == 3 and len(running.sidecar.connections) == 20, 5)
        go.set()
        assert {each.status_code for each in await asyncio.gather(*calls)} == {200}
        assert most == 3


async def test_streams_are_limited_by_caller_not_address(provider: Provider) -> None:
    """The people of one office have one address. One person cannot evade the limit with many addresses."""
    async with (
        sidecar(access=access(provider), limits=Limits(streams_per_client=2)) as running,
        AsyncExitStack() as open_streams,
    ):
        order_id = running.logs.place("PLACED")

        async def authorize(request: status_feed_pb2.AuthorizeStreamRequest, _: Any) -> Any:
            return status_feed_pb2.AuthorizeStreamResponse(caller=request.authorization[0])

        running.pods[0].feed.authorize = authorize

        async def follow(subject: str, address: str) -> httpx.Response:
            headers = {"Authorization": subject, "x-envoy-external-address": address}
            path = f"/api/orders/stream?order_id={order_id}"
            response = await open_streams.enter_async_context(running.http.stream("GET", path, headers=headers))
            if response.status_code != 200:
                await response.aread()
            return response

        for subject in ("ada", "ada", "bob", "bob", "eve"):
            assert (await follow(subject, "192.0.2.1")).status_code == 200
        refused = await follow("ada", "192.0.2.7")
        Rest.refused(refused, 429, 8)
        assert refused.json()["message"] == "too many streams of this caller are open"
        assert len(running.sidecar.connections) == 5
    assert len(running.sidecar.connections) == 0


async def test_guests_of_an_address_do_not_keep_customers_out(provider: Provider) -> None:
    async with (
        sidecar(access=access(provider), limits=Limits(streams_per_client=2)) as running,
        AsyncExitStack() as open_streams,
    ):
        order_id = running.logs.place("PLACED")

        async def authorize(request: status_feed_pb2.AuthorizeStreamRequest, _: Any) -> Any:
            return status_feed_pb2.AuthorizeStreamResponse(caller="".join(request.authorization))

        running.pods[0].feed.authorize = authorize
        path = f"/api/orders/stream?order_id={order_id}"
        for _ in range(2):
            guest = await open_streams.enter_async_context(running.http.stream("GET", path))
            assert guest.status_code == 200
        Rest.refused(await running.http.get(path), 429, 8)
        customer = await open_streams.enter_async_context(
            running.http.stream("GET", path, headers={"Authorization": "ada"})
        )
        assert customer.status_code == 200


async def test_flood_of_one_address_is_refused_unasked(provider: Provider) -> None:
    async with sidecar(access=access(provider), limits=Limits(authorizations_per_address=2)) as running:
        order_id = running.logs.place("CANCELLED")
        go = asyncio.Event()

        async def authorize(*_: Any) -> status_feed_pb2.AuthorizeStreamResponse:
            await go.wait()
            return status_feed_pb2.AuthorizeStreamResponse()

        running.pods[0].feed.authorize = authorize
        path = f"/api/orders/stream?order_id={order_id}"
        calls = [asyncio.create_task(running.http.get(path)) for _ in range(2)]
        await eventually(lambda: len(running.pods[0].feed.authorized) == 2, 5)
        Rest.refused(await running.http.get(path), 429, 8)
        assert len(running.pods[0].feed.authorized) == 2
        go.set()
        await asyncio.gather(*calls)
