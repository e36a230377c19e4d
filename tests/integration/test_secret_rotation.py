"""The shop's own secrets change in three steps, one process after the other, and no call fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import httpx
import pytest

from runtime.access import secret
from runtime.access.config import AccessConfig
from runtime.config import Env
from tests.support.access import credentials
from tests.support.callers import Caller, GuardedShop
from tests.support.eventually import eventually
from tests.support.oidc import Provider, oidc_provider
from tests.support.order import order_shop
from tests.support.product import product_shop
from tests.support.secret_folder import SecretFolder
from tests.support.sidecar import EVENTS, sidecar_before

CLIENTS = 4
"""Clients that place and follow orders, one after the other."""

CALLS_PER_STEP = 8
"""Orders that are placed and followed after each change of a file."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture(autouse=True)
def _read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "READ_INTERVAL", 0)


class Folders:
    """The same secret for several processes, which see a change at different times."""

    def __init__(self, path: Path, *processes: str) -> None:
        path.mkdir()
        first = (credentials() / "current").read_text()  # what the tests' own clients send
        self._folders = {name: SecretFolder(path / name, first) for name in processes}

    def __getitem__(self, process: str) -> str:
        return str(self._folders[process].path)

    def steps(self) -> Iterator[Callable[[], None]]:
        """The changes of files that replace the secret everywhere."""
        new = token_hex(32)
        folders = list(self._folders.values())
        for folder in folders:
            yield lambda folder=folder: folder.add(new)  # type: ignore[misc]  # bound in the loop
        for folder in reversed(folders):
            yield folder.exchange
        for folder in folders:
            yield folder.remove


@dataclass
class Shop:
    guarded: GuardedShop
    http: httpx.AsyncClient
    product_id: str
    done: int = 0
    failures: list[str] = field(default_factory=list)

    async def use(self) -> None:
        """Places orders as a guest and follows each with its ticket, for ever."""
        guest = Caller(self.guarded.shop.orders)
        while True:
            try:
                order = await guest.create(items={self.product_id: 1})
                await guest.with_ticket(order.ticket or "").get(order.id)
                path = f"/api/orders/stream?order_id={order.id}"
                headers = {**EVENTS, "order-ticket": order.ticket or ""}
                async with self.http.stream("GET", path, headers=headers) as response:
                    text = await anext(response.aiter_text())
                    assert text.startswith("id: 1\n"), text
            except Exception as error:
                self.failures.append(repr(error))
            self.done += 1

    async def rotate(self, folders: Folders) -> None:
        for step in folders.steps():
            step()
            wanted = self.done + CALLS_PER_STEP
            await eventually(lambda wanted=wanted: self.done >= wanted, 60)  # type: ignore[misc]  # bound in the loop
            assert self.failures == []


@asynccontextmanager
async def busy_shop(
    databases: tuple[str, str], provider: Provider, internal: Folders, ticket_keys: Folders
) -> AsyncIterator[Shop]:
    order_database, product_database = databases
    access = AccessConfig.from_env(Env(provider.variables(INTERNAL_CREDENTIALS=internal["sse"])))
    async with (
        product_shop(product_database, INTERNAL_CREDENTIALS=internal["product"]) as products,
        order_shop(
            order_database,
            products.address,
            wait=True,
            **provider.variables(),
            INTERNAL_CREDENTIALS=internal["order"],
            TICKET_KEYS=ticket_keys["order"],
        ) as orders,
        sidecar_before(f"ipv4:{orders.address}", access=access) as (_, http),
    ):
        product = await products.create(stock=1_000_000)
        shop = Shop(GuardedShop(orders, provider), http, product.id)
        clients = [asyncio.create_task(shop.use()) for _ in range(CLIENTS)]
        try:
            yield shop
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


async def test_credential_changes_without_failed_call(
    order_database: str, product_database: str, provider: Provider, tmp_path: Path
) -> None:
    internal = Folders(tmp_path / "internal", "product", "order", "sse")
    keys = Folders(tmp_path / "keys", "order")
    async with busy_shop((order_database, product_database), provider, internal, keys) as shop:
        for _ in range(2):
            await shop.rotate(internal)


async def test_ticket_keys_change_without_failed_call(
    order_database: str, product_database: str, provider: Provider, tmp_path: Path
) -> None:
    """Two processes of order: what one has signed, the other reads."""
    internal = Folders(tmp_path / "internal", "product", "order", "sse")
    keys = Folders(tmp_path / "keys", "order", "second")
    async with (
        busy_shop((order_database, product_database), provider, internal, keys) as shop,
        order_shop(
            order_database, "ipv4:127.0.0.1:1", wait=True, **provider.variables(), TICKET_KEYS=keys["second"]
        ) as second,
    ):
        other = Caller(second.orders)

        async def read_elsewhere() -> None:
            order = await shop.guarded.guest().create(items={shop.product_id: 1})
            await other.with_ticket(order.ticket or "").get(order.id)
            ticket = (await other.with_ticket(order.ticket or "").ticket(order.id)).ticket
            assert await shop.guarded.authorize(order.id, stream_ticket=ticket) == ""

        for step in keys.steps():
            step()
            await read_elsewhere()
            wanted = shop.done + CALLS_PER_STEP
            await eventually(lambda wanted=wanted: shop.done >= wanted, 60)  # type: ignore[misc]  # bound in the loop
            assert shop.failures == []
