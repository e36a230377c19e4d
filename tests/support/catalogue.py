"""A large catalogue, and clients that search it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import psycopg
from shop.product.v1 import product_pb2, product_pb2_grpc

NOWHERE = "zq"
"""Two letters that no product of `fill` has. They are too short for the index, so a search reads every product."""


async def fill(conninfo: str, number: int) -> None:
    """Adds so many products of 1 KB. All have the word "watch", and none has NOWHERE."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock,"
            " star, image_uri) SELECT gen_random_uuid(), 'Watch ' || n, n, n, '',"
            " repeat('A steel watch for him and for her. ', 28), 'C' || i %% 10, 'EUR', i, 0, 0, ''"
            " FROM generate_series(1, %s) AS s (i), CAST(i AS text) AS n",
            (number,),
        )
        await connection.execute("VACUUM ANALYZE product")


@asynccontextmanager
async def searching(address: str, number: int) -> AsyncIterator[Counter[str]]:
    """Lets clients search for NOWHERE again and again during the block.

    Args:
        address: The product service.
        number: How many clients there are.

    Yields:
        How often they got each status code. A client that is refused waits before it searches again.
    """
    told: Counter[str] = Counter()
    request = product_pb2.ListProductsRequest(search=NOWHERE)

    async def search(products: "product_pb2_grpc.ProductServiceAsyncStub") -> None:
        await asyncio.sleep(random.uniform(0, 1))
        while True:
            try:
                answer = await products.ListProducts(request, timeout=10)
                assert not answer.products
                told["OK"] += 1
            except grpc.aio.AioRpcError as error:
                told[error.code().name] += 1
                # The error asks clients to wait for a second; they do not all return at the same moment.
                await asyncio.sleep(random.uniform(1, 2))

    async with grpc.aio.insecure_channel(address) as channel:
        stub = product_pb2_grpc.ProductServiceStub(channel)
        searchers = [asyncio.create_task(search(stub)) for _ in range(number)]
        try:
            yield told
        finally:
            for each in searchers:
                each.cancel()
            await asyncio.gather(*searchers, return_exceptions=True)


async def slowest(call: Callable[[], Awaitable[object]], times: int) -> float:
    """Makes calls one after the other. Returns the seconds that the slowest one took."""
    took = []
    for _ in range(times):
        started = time.monotonic()
        await call()
        took.append(time.monotonic() - started)
    return max(took)
