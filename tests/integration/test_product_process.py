"""The product process as operators see it: its commands, its readiness, how it stops."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc

from product.domain import Content
from product.store import Created, ProductStore, Replayed
from runtime.config import DatabaseConfig
from runtime.database import Database
from tests.support.access import credentials
from tests.support.eventually import eventually
from tests.support.invariants import check_stock
from tests.support.product import product_shop

REPOSITORY = Path(__file__).resolve().parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def start(command: str, **variables: str) -> asyncio.subprocess.Process:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "DATABASE_", "PG"))}
    own = {"LISTEN_HOST": "127.0.0.1", "SHUTDOWN_DELAY": "0", "INTERNAL_CREDENTIALS": str(credentials())}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "product",
        command,
        env=inherited | own | variables,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(port: int, conninfo: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, grpc.aio.Channel]]:
    process = await start("serve", GRPC_PORT=str(port), DATABASE_URL=conninfo)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, channel
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def has_status(channel: grpc.aio.Channel, service: str, status: int) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True)
    return bool(response.status == status)


async def until(channel: grpc.aio.Channel, service: str, status: int) -> None:
    await eventually(lambda: has_status(channel, service, status), 20, interval=0.1)


async def test_process_waits_for_schema_and_stops_on_sigterm(empty_database: str, free_port: int) -> None:
    """It is live at once and ready after `migrate`. It exits with status 0."""
    async with running(free_port, empty_database) as (process, channel):
        await until(channel, "liveness", SERVING)
        await until(channel, "shop.product.v1.ProductService", NOT_SERVING)
        for _ in range(2):  # a second migrate has nothing to do
            assert await (await start("migrate", DATABASE_URL=empty_database)).wait() == 0
        for service in ("", "shop.product.v1.ProductService", "shop.product.v1.StockService"):
            await until(channel, service, SERVING)
        products = product_pb2_grpc.ProductServiceStub(channel)
        assert not (await products.ListProducts(product_pb2.ListProductsRequest())).products
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_bad_configuration_exits_with_status_2() -> None:
    for variables in ({"GRPC_PORT": "x"}, {"DATABASE_POOL_SIZE": "0"}, {"DATABASE_URL": "no such thing"}):
        process = await start("serve", **variables)
        _, said = await process.communicate()
        (name,) = variables
        assert process.returncode == 2
        assert said.decode().count("\n") == 1
        assert name in said.decode()


async def test_repeated_create_statement_writes_once(product_database: str) -> None:
    """A statement whose connection is lost runs again, even if the first run has written."""
    database = Database(DatabaseConfig(conninfo=product_database, pool_size=1, pool_waiting=1, timeout=5), "test")
    await database.open()
    store, product_id = ProductStore(database, database), uuid4()
    content = Content(name="Steel watch", currency="EUR").complete({"slug", "sku"})
    first = await store.create(product_id, content, 5, b"of it")
    assert isinstance(first, Created)
    second = await store.create(product_id, content, 5, b"of it")
    assert isinstance(second, Replayed)
    product = second.product
    assert (product.id, product.stock, product.version, second.fingerprint) == (first.product.id, 5, 1, b"of it")
    await database.close()
    async with product_shop(product_database) as shop, shop.connection() as connection:
        assert UUID((await shop.get(str(product_id))).id) == product_id
        await check_stock(connection)
