"""The catalogue on replicas: what is read there, and what happens when one is behind or away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import psycopg
import pytest
from shop.product.v1 import product_pb2, stock_pb2

from tests.support.eventually import eventually
from tests.support.product import ProductShop, product_shop
from tests.support.replication import Instance, Replication

ANY_LAG = "3600"
"""Seconds that a replica may be behind, if a test does not look at that."""


@asynccontextmanager
async def replicated_shop(folder: Path, max_lag: str = ANY_LAG) -> AsyncIterator[tuple[Replication, ProductShop]]:
    """Runs a shop that reads from the one standby, once it does so."""
    folder.chmod(0o755)
    async with Replication(folder).running() as servers:
        replicas = f"host=127.0.0.1 port={servers.ro.port}"
        variables = {"DATABASE_READ_URL": replicas, "DATABASE_READ_MAX_LAG": max_lag}
        async with product_shop(servers.conninfo("product"), **variables) as shop:
            await eventually(lambda: is_read(servers.instances[1]), 20)
            yield servers, shop


async def is_read(server: Instance) -> bool:
    """Returns whether the shop has connections to a server, as to a replica, that were found to be up to date."""
    rows = await server.run(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'product replica'"
        " AND (query LIKE '%AS responds%' OR query LIKE '%FROM product %')"
    )
    return bool(rows)


async def rename(shop: ProductShop, product_id: str) -> str:
    """Gives a product a new name, and returns it."""
    name = f"Watch {uuid4().hex[:8]}"
    assert (await shop.update(product_id, "name", name=name)).name == name
    return name


async def listed(shop: ProductShop, search: str = "") -> list[str]:
    found = await shop.products.ListProducts(product_pb2.ListProductsRequest(search=search))
    return [each.name for each in found.products]


async def applied(servers: Replication) -> None:
    """Waits until the standby has all that was written."""
    [(position,)] = await servers.instances[servers.primary].run("SELECT pg_current_wal_lsn()::text")

    async def has_it() -> bool:
        [(there,)] = await servers.instances[1].run(f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn")
        return bool(there)

    await eventually(has_it)


async def test_customers_read_replica_and_orders_read_primary(tmp_path: Path) -> None:
    async with replicated_shop(tmp_path) as (servers, shop):
        product = await shop.create("Steel watch", stock=5, category="Watches")
        await applied(servers)
        await servers.instances[1].run("SELECT pg_wal_replay_pause()")
        name = await rename(shop, product.id)
        await shop.update(product.id, "category", category="Clocks")
        assert (await shop.get(product.id)).name == "Steel watch"
        batch = product_pb2.BatchGetProductsRequest(ids=[product.id])
        assert [each.name for each in (await shop.products.BatchGetProducts(batch)).products] == ["Steel watch"]
        assert await listed(shop) == ["Steel watch"]
        assert await listed(shop, search="steel") == ["Steel watch"]
        categories = await shop.products.ListCategories(product_pb2.ListCategoriesRequest())
        assert [each.name for each in categories.categories] == ["Watches"]
        # What an order or a cart is told, and what a write compares with, is the primary's.
        reservation = await shop.reserve({product.id: 1})
        assert [item.name for item in reservation.items] == [name]
        offers = await shop.stock.BatchGetOffers(stock_pb2.BatchGetOffersRequest(product_ids=[product.id]))
        assert [(offer.name, offer.available) for offer in offers.offers] == [(name, 4)]
        unchanged = await shop.update(product.id)
        assert unchanged.name == name


async def test_replica_that_is_behind_is_not_read(tmp_path: Path) -> None:
    async with replicated_shop(tmp_path, "1") as (servers, shop):
        product = await shop.create("Steel watch")
        await applied(servers)
        await servers.instances[1].run("SELECT pg_wal_replay_pause()")
        name = await rename(shop, product.id)
        start = time.monotonic()

        async def is_new() -> bool:
            return (await shop.get(product.id)).name == name and await listed(shop) == [name]

        await eventually(is_new, 10)
        assert time.monotonic() - start < 1 + 2 + 1.5, "the lag that is allowed, the checks, and a slow machine"
        await servers.instances[1].run("SELECT pg_wal_replay_resume()")
        await applied(servers)

        async def is_used_again() -> bool:
            await servers.instances[1].run("SELECT pg_wal_replay_pause()")
            later = await rename(shop, product.id)
            found = (await shop.get(product.id)).name
            await servers.instances[1].run("SELECT pg_wal_replay_resume()")
            await applied(servers)
            return found != later

        await eventually(is_used_again, 15)


async def read_for(shop: ProductShop, product_id: str, seconds: float) -> float:
    """Reads a product all the time. Returns how long the slowest read took, in seconds."""
    slowest, end = 0.0, time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        assert (await shop.get(product_id)).name == "Steel watch"
        slowest = max(slowest, time.monotonic() - start)
        await asyncio.sleep(0.02)
    return slowest


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_lost_replica_fails_no_read(tmp_path: Path, fault: str) -> None:
    """A replica that is frozen costs the reads that it has, and the next one, a bounded time."""
    async with replicated_shop(tmp_path) as (servers, shop):
        product = await shop.create("Steel watch")
        await applied(servers)
        reading = asyncio.create_task(read_for(shop, product.id, 6))
        await asyncio.sleep(1)
        getattr(servers.instances[1], fault)()
        slowest = await reading
        assert slowest < 5
        assert shop.server.ready
        # As soon as it is known, nobody waits for it.
        assert await read_for(shop, product.id, 2) < 1
        if fault == "kill":
            servers.instances[1].start()
        else:
            servers.instances[1].thaw()
        await eventually(servers.instances[1].responds, 20)
        await eventually(lambda: is_read(servers.instances[1]), 20)


async def test_frozen_replica_fails_none_of_many_readers(tmp_path: Path) -> None:
    """More reads than connections: those that wait for a connection use the primary, too."""

    async def read(shop: ProductShop, page_size: int) -> float:
        start = time.monotonic()
        found = await shop.products.ListProducts(product_pb2.ListProductsRequest(page_size=page_size))
        assert [each.name for each in found.products] == ["Steel watch"]
        return time.monotonic() - start

    async with replicated_shop(tmp_path) as (servers, shop):
        await shop.create("Steel watch")
        await applied(servers)

        async def all_connections_read() -> bool:
            query = "SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'product replica'"
            return [kind for (kind,) in await servers.instances[1].run(query)] == 6 * ["Lock"]

        async with await psycopg.AsyncConnection.connect(servers.conninfo("product")) as connection:
            # The replica takes the lock, too. So each connection has passed its check, and is in the middle of a read.
            await connection.execute("LOCK TABLE product IN ACCESS EXCLUSIVE MODE")
            await servers.instances[0].run("SELECT pg_switch_wal()")  # which sends the lock
            await asyncio.sleep(0.5)
            reading = [asyncio.create_task(read(shop, 1 + n)) for n in range(20)]
            await eventually(all_connections_read, 2)
            servers.instances[1].freeze()
            await connection.rollback()
        slowest = max(await asyncio.gather(*reading))
        assert slowest < 3 + 1.5, "the statements that run are cut after 3 seconds"
        assert await read(shop, 1) < 1


async def test_frozen_replica_is_noticed_before_a_read(tmp_path: Path) -> None:
    """Its connections are checked again before the first read after a pause."""
    async with replicated_shop(tmp_path) as (servers, shop):
        product = await shop.create("Steel watch")
        await applied(servers)
        await read_for(shop, product.id, 0.5)
        await asyncio.sleep(1.5)
        servers.instances[1].freeze()
        start = time.monotonic()
        await shop.get(product.id)
        assert time.monotonic() - start < 2, "the check takes one second at most"


async def test_replica_is_read_while_primary_is_away(tmp_path: Path) -> None:
    async with replicated_shop(tmp_path) as (servers, shop):
        product = await shop.create("Steel watch")
        await applied(servers)
        assert (await shop.get(product.id)).name == "Steel watch"
        servers.instances[0].kill()
        await read_for(shop, product.id, 3)
        with pytest.raises(grpc.aio.AioRpcError):
            await shop.create("Another")


async def test_promoted_replica_is_left(tmp_path: Path) -> None:
    """Connections survive a promotion. Reads do not stay on the new primary as if it were a replica."""
    async with replicated_shop(tmp_path) as (servers, shop):
        product = await shop.create("Steel watch")
        await applied(servers)
        await read_for(shop, product.id, 1)
        await servers.switch_over(1)

        async def is_on_the_other() -> bool:
            await shop.get(product.id)
            return await is_read(servers.instances[0])

        await eventually(is_on_the_other, 20)
        assert (await shop.get(product.id)).name == "Steel watch"


async def test_shop_starts_without_replica(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with Replication(tmp_path, standbys=0).running() as servers:
        away = f"host=127.0.0.1 port={servers.ro.port}"
        servers.ro.target = 1  # nothing listens there
        async with product_shop(servers.conninfo("product"), DATABASE_READ_URL=away) as shop:
            await eventually(lambda: shop.server.ready, 10)
            product = await shop.create("Steel watch")
            assert await read_for(shop, product.id, 2) < 1
