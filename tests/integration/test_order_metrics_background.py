"""What the order service measures of its background work and its streams, as Prometheus reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from bench.data import fill_orders
from bench.plans import Planned, Plans, describe
from local.settings import free_ports
from order.jobs import backlog, expired_carts, expired_holds
from order.jobs.backlog import MAX_COUNTED, Backlog
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, scrape
from tests.support.order import A, B, FakeStock, OrderShop, order_shop
from tests.support.product import refused
from tests.support.watching import Watching, silenced, tailer_pids


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background jobs poll often."""
    monkeypatch.setattr(backlog, "BACKLOG_POLL_INTERVAL", 0.1)
    monkeypatch.setattr(expired_holds, "HOLD_POLL_INTERVAL", 0.1)
    monkeypatch.setattr(expired_carts, "PURGE_INTERVAL", 0.2)


@pytest.fixture
def stock() -> FakeStock:
    return FakeStock()


@pytest.fixture
async def shop(order_database: str, stock: FakeStock, port: int) -> AsyncIterator[OrderShop]:
    async with order_shop(order_database, stock, METRICS_PORT=str(port)) as shop:
        yield shop


async def run(shop: OrderShop, query: str, *values: object) -> None:
    async with shop.connection() as connection:
        await connection.execute(query.encode(), values)


async def within(port: int, name: str, low: float, high: float) -> Scrape:
    """Waits until a metric without labels has a value of this range. Returns all metrics of that moment."""
    seen = await scrape(port)

    async def in_range() -> bool:
        nonlocal seen
        seen = await scrape(port)
        values = seen.values(name)
        assert len(values) == 1, f"{name} is absent"
        assert low <= values[0] <= high
        return True

    await eventually(in_range)
    return seen


async def test_outbox_grows_while_product_service_is_away(shop: OrderShop, stock: FakeStock, port: int) -> None:
    order = await shop.create()
    await eventually(shop.outbox_is_empty)
    seen = await within(port, "shop_outbox_messages", 0, 0)
    assert seen.values("shop_outbox_age_seconds") == [0]
    stock.down = True
    await shop.move("CANCELLED", order.id)
    seen = await within(port, "shop_outbox_age_seconds", 1, 60)
    assert seen.values("shop_outbox_messages") == [1]
    assert seen.value("shop_outbox_failures_total", action="RELEASE") >= 1
    assert seen.value("shop_outbox_failures_total", action="CONFIRM") == 0
    assert seen.value("shop_outbox_sent_total", action="CONFIRM") == 1
    stock.down = False
    await eventually(shop.outbox_is_empty)
    seen = await within(port, "shop_outbox_messages", 0, 0)
    assert seen.value("shop_outbox_sent_total", action="RELEASE") == 1


async def test_age_is_that_of_the_oldest_message(shop: OrderShop, stock: FakeStock, port: int) -> None:
    """A confirmation is as old as its order, a release as the cancellation."""
    stock.down = True
    async with shop.connection() as connection:
        await connection.execute(
            "INSERT INTO orders (id, number, status, create_time, update_time) VALUES"
            " (%(a)s, 'a', 'PROCESSED', now() - interval '300 s', now() - interval '20 s'),"
            " (%(b)s, 'b', 'CANCELLED', now() - interval '900 s', now() - interval '100 s')",
            {"a": A, "b": B},
        )
        await connection.execute(
            "INSERT INTO outbox (order_id, action) VALUES (%s, 'CONFIRM'), (%s, 'RELEASE')", (A, B)
        )
        seen = await within(port, "shop_outbox_age_seconds", 299, 360)
        assert seen.values("shop_outbox_messages") == [2]
        await connection.execute("DELETE FROM outbox WHERE order_id = %s", (A,))
        seen = await within(port, "shop_outbox_age_seconds", 99, 160)


async def test_parked_message_grows_old(shop: OrderShop, stock: FakeStock, port: int) -> None:
    """An order has lost its stock. Each attempt to confirm it counts as a failure."""
    order = await shop.create()
    await eventually(shop.outbox_is_empty)
    del stock.reservations[UUID(order.id)]
    await run(shop, "INSERT INTO outbox (order_id, action) VALUES (%s, 'CONFIRM')", order.id)
    await within(port, "shop_outbox_age_seconds", 2, 60)

    async def failed() -> bool:
        return (await scrape(port)).value("shop_outbox_failures_total", action="CONFIRM") == 1

    await eventually(failed)


async def test_purge_lag_is_that_of_the_oldest_expired_cart(shop: OrderShop, port: int) -> None:
    """A lock keeps the purger from one of two carts."""
    async with await psycopg.AsyncConnection.connect(shop.conninfo) as other:
        await other.execute("INSERT INTO cart (owner, expire_time) VALUES ('held', now() - interval '500 s')")
        await other.commit()
        await other.execute("SELECT FROM cart FOR UPDATE")
        seen = await within(port, "shop_carts_purge_lag_seconds", 500, 560)
        expired = seen.value("shop_carts_expired_total")
        await run(
            shop, "INSERT INTO cart (owner, expire_time) VALUES ('free', now()), ('kept', now() + interval '1 h')"
        )

        async def counted() -> bool:
            return (await scrape(port)).value("shop_carts_expired_total") == expired + 1

        await eventually(counted)
    await within(port, "shop_carts_purge_lag_seconds", 0, 0)
    assert (await scrape(port)).value("shop_carts_expired_total") == expired + 2


async def test_backlog_is_absent_while_database_is_away(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before says nothing any more. The age of the tailer tells how long it is away."""
    monkeypatch.setattr(backlog, "MAX_READING_AGE", 1.0)
    names = ("shop_outbox_messages", "shop_outbox_age_seconds", "shop_carts_purge_lag_seconds")
    server = DatabaseServer(tmp_path)

    async def present() -> list[bool]:
        return [name in (await scrape(port)).names for name in names]

    async def all_present() -> bool:
        return all(await present())

    async def none_present() -> bool:
        return not any(await present())

    with server.running(), server.database("order") as conninfo:
        async with order_shop(conninfo, FakeStock(), METRICS_PORT=str(port)):
            await eventually(all_present)
            await asyncio.to_thread(server.postgres.stop)
            await eventually(none_present)
            assert (await scrape(port)).values("shop_tailer_age_seconds")[0] > 0.5
            await asyncio.to_thread(server.postgres.start, server.postgres.port)
            await eventually(all_present)
            await within(port, "shop_tailer_age_seconds", 0, 1.5)


async def test_settled_holds_are_counted(shop: OrderShop, stock: FakeStock, port: int) -> None:
    """A hold with an order is confirmed, one without is released."""
    order = await shop.create()
    await eventually(shop.outbox_is_empty)
    await stock.reserve(UUID(B), [], None)
    stock.overdue = [UUID(order.id), UUID(B)]

    async def settled() -> dict[str, float]:
        seen = await scrape(port)
        return {each: seen.value("shop_holds_settled_total", outcome=each) for each in ("confirmed", "released")}

    async def both() -> bool:
        counts = await settled()
        return counts["confirmed"] >= 1 and counts["released"] >= 1

    await eventually(both)
    assert (await settled())["released"] == 1


async def test_failed_hold_is_not_settled(shop: OrderShop, stock: FakeStock, port: int) -> None:
    stock.down = True
    await asyncio.sleep(0.5)
    assert (await scrape(port)).value("shop_holds_settled_total") == 0


async def test_tailer_that_hangs_grows_old(shop: OrderShop, port: int) -> None:
    """The database's process behind its connection does not respond."""
    await within(port, "shop_tailer_age_seconds", 0, 1.5)
    (pid,) = await tailer_pids(shop)
    async with silenced(pid):
        await within(port, "shop_tailer_age_seconds", 2, 60)
    await within(port, "shop_tailer_age_seconds", 0, 1.5)


async def test_events_are_counted(shop: OrderShop, port: int) -> None:
    order = await shop.create()
    for status in ("PROCESSED", "DELIVERED"):
        await shop.move(status, order.id)

    async def events() -> bool:
        return (await scrape(port)).values("shop_tailer_events_total") == [3]

    await eventually(events)


async def test_watchers_come_and_go(order_database: str, port: int) -> None:
    """A finished order's stream has ended, and a refused one has never begun."""
    async with order_shop(order_database, FakeStock(), METRICS_PORT=str(port), ORDER_MAX_STREAMS="2") as shop:
        orders = [await shop.create() for _ in range(3)]
        assert (await scrape(port)).values("shop_watchers_max") == [2]
        watching = [Watching(shop, order.id) for order in orders[:2]]
        await asyncio.gather(*(each.until(1) for each in watching))
        await within(port, "shop_watchers", 2, 2)
        with refused() as error:
            await anext(aiter(shop.stream(orders[2].id)))
        assert error.code == "RESOURCE_EXHAUSTED"
        await within(port, "shop_watchers", 2, 2)
        await shop.move("CANCELLED", orders[0].id)
        await watching[0].until(2)
        await within(port, "shop_watchers", 1, 1)


async def test_feeds_come_and_go(shop: OrderShop, port: int) -> None:
    """A feed is not a watcher."""
    await within(port, "shop_feed_connections", 0, 0)
    feeds = [shop.feed.FollowOrders() for _ in range(2)]
    for feed in feeds:
        await feed.initial_metadata()
    seen = await within(port, "shop_feed_connections", 2, 2)
    assert seen.values("shop_watchers") == [0]
    feeds[0].cancel()
    await within(port, "shop_feed_connections", 1, 1)
    feeds[1].cancel()


async def cost_of(plans: Any) -> Any:
    with pytest.raises(Planned) as planned:
        await Backlog(plans).step()
    return planned.value.cost


async def test_backlog_is_read_by_indexes(order_database: str) -> None:
    """However much waits, also before statistics know of it."""
    fill_orders(order_database, 1, 30_000, ours=True)
    with closing(Plans(order_database)) as plans, psycopg.connect(order_database, autocommit=True) as connection:
        connection.execute("DELETE FROM outbox")
        connection.execute("VACUUM ANALYZE")
        empty = await cost_of(plans)
        assert empty.buffers <= 10, describe(empty.plan)
        connection.execute("INSERT INTO outbox (order_id, action) SELECT id, 'CONFIRM' FROM orders ORDER BY id")
        connection.execute(
            "INSERT INTO cart (secret_hash, expire_time)"
            " SELECT sha256(n::text::bytea), now() - n * interval '1 s' FROM generate_series(-30000, 30000) AS n"
        )
        for analyzed in (False, True):
            if analyzed:
                connection.execute("VACUUM ANALYZE")
            full = await cost_of(plans)
            assert full.buffers <= MAX_COUNTED / 20, describe(full.plan)


@dataclass(frozen=True)
class Prepared:
    """Statements for which PostgreSQL keeps a plan."""

    number: int


async def test_count_of_messages_is_capped(order_database: str) -> None:
    database = Database(DatabaseConfig(conninfo=order_database, pool_size=1, pool_waiting=1, timeout=5), "backlog")
    await database.open()
    try:
        reader = Backlog(database)
        assert reader.latest.get() is None
        async with await psycopg.AsyncConnection.connect(order_database, autocommit=True) as connection:
            await connection.execute(
                "INSERT INTO outbox (order_id, action)"
                " SELECT gen_random_uuid(), 'CONFIRM' FROM generate_series(1, 10100)"
            )
        await reader.step()
        latest = reader.latest.get()
        query: LiteralString = """
            SELECT count(*) AS number FROM pg_prepared_statements
            WHERE statement ~ 'purge_lag' AND statement !~ 'number'
            """
        prepared = await database.fetch_one("test", query, {}, Prepared)
    finally:
        await database.close()
    assert latest
    assert (latest.messages, latest.message_age) == (MAX_COUNTED, 0), "messages without an order have no age"
    assert prepared == Prepared(0), "a plan made for an empty outbox would be used for a full one"
