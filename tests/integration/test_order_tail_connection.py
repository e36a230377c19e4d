"""The tailer's connection: when it fails without a word, and when there is none."""

import asyncio
import logging
import re

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from order.live import cursor, tailer
from runtime import server
from tests.support.database import DatabaseServer
from tests.support.eventually import eventually
from tests.support.order import FakeStock, order_shop
from tests.support.product import refused
from tests.support.watching import Watching, silenced, tailer_pids


async def test_silent_connection_is_given_up(order_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands, and the process at its other end is there; only a time limit tells that no event will come."""
    monkeypatch.setattr(cursor, "READ_TIMEOUT", 0.5)
    async with order_shop(order_database, FakeStock()) as shop:
        order = await shop.create()
        watching = Watching(shop, order.id)
        await watching.until(1)
        (pid,) = await tailer_pids(shop)
        async with silenced(pid):
            await shop.move("PROCESSED", order.id)
            await watching.until(2, 3)
            await shop.move("DELIVERED", order.id)
            await watching.until(3, 0.5)
        watching.check()


async def test_service_without_tailer_connection_is_not_ready(
    order_database: str, postgres: DatabaseServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls would succeed; whoever watched would wait in vain."""
    caplog.set_level(logging.INFO)
    name = sql.Identifier(str(conninfo_to_dict(order_database)["dbname"]))
    async with await psycopg.AsyncConnection.connect(postgres.postgres.conninfo("postgres"), autocommit=True) as admin:
        # One for each pool, which come first.
        await admin.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 2").format(name))
        sizes = {"DATABASE_POOL_SIZE": "1", "SEARCH_POOL_SIZE": "1"}
        async with order_shop(order_database, FakeStock(), wait=False, **sizes) as shop:

            async def said() -> bool:
                found = re.search(r"not ready: the status tailer has no connection \((.*)\)", caplog.text)
                return found is not None and "too many connections for database" in found[1]

            await eventually(said)
            assert not shop.server.ready
            await admin.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))

            async def ready() -> bool:
                return shop.server.ready

            await eventually(ready)


async def test_service_without_tailer_connection_ends_streams(
    order_database: str, postgres: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pool works and its tailer gets no connection: whoever watches there has to go elsewhere."""
    monkeypatch.setattr(server, "UNREADY_DELAY", 1.0)
    database = str(conninfo_to_dict(order_database)["dbname"])
    async with (
        await psycopg.AsyncConnection.connect(postgres.postgres.conninfo("postgres"), autocommit=True) as admin,
        order_shop(order_database, FakeStock(), DATABASE_POOL_SIZE="1") as shop,
    ):
        order = await shop.create()
        stream = aiter(shop.stream(order.id))
        await anext(stream)
        limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
        await admin.execute(limit.format(sql.Identifier(database), 1))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'order tailer' AND datname = %s",
            (database,),
        )
        for _ in range(2):  # one that stands, and a new one
            with refused() as error:
                await asyncio.wait_for(anext(stream), 20)
            stream = aiter(shop.stream(order.id))
            assert error.what.code == "UNAVAILABLE"
            assert error.what.message == "this replica cannot stream order events at present; reconnect"
        assert (await shop.get(order.id)).id == order.id
        await admin.execute(limit.format(sql.Identifier(database), -1))

        async def hears() -> bool:
            return shop.server.ready

        await eventually(hears)
        assert (await anext(aiter(shop.stream(order.id)))).version == 1


async def test_tailer_without_connection_is_reported(order_database: str) -> None:
    """Where there is no primary to connect to, it waits and says so."""
    async with order_shop(order_database, FakeStock()) as shop:
        reader = tailer.Tailer("host=127.0.0.1 port=1", shop.followers.topics)
        running = asyncio.create_task(reader.run())
        assert "the status tailer has no connection" in await reader.check()
        running.cancel()
