"""The shop in which calls race: product and two order services, all real processes, on one PostgreSQL."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from shop.cart.v1 import cart_pb2_grpc
from shop.order.v1 import order_pb2_grpc
from shop.product.v1 import product_pb2_grpc

from bench.fleet import Command, Fleet, until_serving
from local.settings import LOOPBACK, free_ports
from order.jobs.expired_carts import CartPurger
from runtime.client import channel
from runtime.config import DatabaseConfig, Env
from runtime.database import Database
from tests.support.oidc import Provider

HISTORY = """
    CREATE TABLE cart_history (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
        cart_id uuid NOT NULL,
        old_etag uuid,
        etag uuid,
        old_items jsonb,
        items jsonb,
        merged boolean NOT NULL,
        was_expired boolean NOT NULL
    );
    CREATE TABLE order_history (
        order_id uuid PRIMARY KEY,
        transaction xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    CREATE FUNCTION remember_cart() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'UPDATE' OR NEW.etag <> OLD.etag OR NEW.items <> OLD.items THEN
            INSERT INTO cart_history (cart_id, old_etag, etag, old_items, items, merged, was_expired)
            VALUES (
                coalesce(NEW.id, OLD.id), OLD.etag, NEW.etag, OLD.items, NEW.items,
                coalesce(NEW.merged_into IS DISTINCT FROM OLD.merged_into, false) AND TG_OP = 'UPDATE',
                coalesce(OLD.expire_time <= now(), false)
            );
        END IF;
        RETURN NULL;
    END
    $$;
    CREATE FUNCTION remember_order() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO order_history (order_id) VALUES (NEW.id);
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON cart FOR EACH ROW EXECUTE FUNCTION remember_cart();
    CREATE TRIGGER remember AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION remember_order();
    """
"""Writes down each version of a cart, in the sequence in which the versions replaced each other, and which transaction
made it. A change holds the lock of its cart until its end, so the sequence is that of the changes."""

EXPIRE: LiteralString = "UPDATE cart SET expire_time = now() - interval '1 second' WHERE id = %(id)s"


class RaceShop(Fleet):
    """The processes, and the clients of each."""

    def __init__(self, state: Path, databases: Mapping[str, str], provider: Provider, *, careless: bool) -> None:
        """Starts nothing yet: see `running`.

        Args:
            state: The folder of the logs.
            databases: A connection string for each service.
            provider: Makes the tokens that the shop accepts.
            careless: Whether carts are read and then written, as in tests/races/process.py.
        """
        super().__init__(state)
        self.databases = databases
        self.provider = provider
        self._module = "tests.races.process" if careless else "order"
        self._ports: dict[str, int] = dict(zip(("product", "order-0", "order-1"), free_ports(3), strict=True))
        self.staff = self.signed_in("staff", staff=True)
        self.carts: list[Any] = []
        """A client of each order service."""
        self.orders: list[Any] = []
        self.products: Any = None
        config = DatabaseConfig.from_env(Env({"DATABASE_URL": databases["order"]}))
        self._database = Database(config, "test races")
        self.connections: dict[str, psycopg.AsyncConnection[Any]] = {}
        """A connection to each service's database."""

    def signed_in(self, subject: str, *, staff: bool = False) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a signed-in caller."""
        return (("authorization", f"Bearer {self.provider.token(subject, staff=staff)}"),)

    async def expire(self, cart_id: str) -> None:
        """Lets the time of a cart pass."""
        await self._database.execute("cart.expire", EXPIRE, {"id": cart_id})

    async def purge(self) -> None:
        """Deletes expired carts, as the order service's job does."""
        await CartPurger(self._database).carts.delete_batch()

    def command(self, name: str) -> Command:
        part = name.partition("-")[0]
        environment = self.environment(
            DATABASE_URL=self.databases[part],
            PRODUCT_TARGET=f"ipv4:{LOOPBACK}:{self._ports['product']}",
            GRPC_PORT=str(self._ports[name]),
            **self.provider.variables(),
        )
        return [sys.executable, "-m", self._module if part == "order" else part], environment

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RaceShop"]:
        """Runs the processes until the end of the block."""
        self.logs.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            for service, conninfo in self.databases.items():
                connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
                self.connections[service] = await stack.enter_async_context(connection)
            await self.connections["order"].execute(HISTORY)
            stack.callback(self.stop)
            for name in self._ports:
                self.launch(name)
            names = {"product": "shop.product.v1.ProductService", "order": "shop.cart.v1.CartService"}
            async with asyncio.timeout(60):
                for name, port in self._ports.items():
                    await until_serving(f"{LOOPBACK}:{port}", names[name.partition("-")[0]])

            async def connected(name: str) -> Any:
                return await stack.enter_async_context(channel(f"ipv4:{LOOPBACK}:{self._ports[name]}"))

            await self._database.open()
            stack.push_async_callback(self._database.close)
            self.products = product_pb2_grpc.ProductServiceStub(await connected("product"))
            for name in ("order-0", "order-1"):
                to_order = await connected(name)
                self.carts.append(cart_pb2_grpc.CartServiceStub(to_order))
                self.orders.append(order_pb2_grpc.OrderServiceStub(to_order))
            yield self
