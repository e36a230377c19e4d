"""What a client gets if the database has written, but its response was lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from shop.product.v1 import product_pb2

from tests.support.product import ProductShop, product_shop, refused
from tests.support.proxy import Proxy, lose_response


@asynccontextmanager
async def behind_proxy(conninfo: str) -> AsyncIterator[tuple[ProductShop, Proxy]]:
    async with Proxy(int(str(conninfo_to_dict(conninfo)["port"]))).running() as proxy:
        async with product_shop(make_conninfo(conninfo, port=proxy.port), DATABASE_POOL_SIZE="1") as shop:
            # A statement's first run on a connection has one response more: that it is prepared.
            product = await shop.create("Prepared")
            for etag in ("", "2"):
                await shop.products.UpdateProduct(update_request(product.id, name="Prepared", etag=etag))
            await shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id, etag="3"))
            yield shop, proxy


def update_request(product_id: str, **fields: Any) -> product_pb2.UpdateProductRequest:
    return product_pb2.UpdateProductRequest(product=product_pb2.Product(id=product_id, **fields))


async def has_name(shop: ProductShop, product_id: str, name: str) -> bool:
    return (await shop.get(product_id)).name == name


async def is_deleted(shop: ProductShop, product_id: str) -> bool:
    return (await shop.get(product_id)).HasField("delete_time")


@pytest.mark.parametrize("conditional", [True, False])
async def test_update_with_lost_response_is_never_a_conflict(product_database: str, conditional: bool) -> None:
    """With an etag, a second run would conflict with the first run of the same call.

    Without one, it runs again, and the result is the same.
    """
    async with behind_proxy(product_database) as (shop, proxy), product_shop(product_database) as other:
        product = await shop.create("Steel watch")
        etag = product.etag if conditional else ""
        update = shop.products.UpdateProduct(update_request(product.id, name="Gold watch", etag=etag))
        written = partial(has_name, other, product.id, "Gold watch")

        if conditional:
            with refused() as error:
                await lose_response(proxy, update, written)
            assert (error.code, error.message) == ("UNAVAILABLE", "the database is unavailable")
        else:
            await lose_response(proxy, update, written)
        assert int((await other.get(product.id)).etag) == int(product.etag) + (1 if conditional else 2)


async def test_delete_with_lost_response_succeeds(product_database: str) -> None:
    """A second run finds the product deleted, which is what the call asks for."""
    async with behind_proxy(product_database) as (shop, proxy), product_shop(product_database) as other:
        product = await shop.create("Steel watch")
        deleted = partial(is_deleted, other, product.id)
        delete = shop.products.DeleteProduct(product_pb2.DeleteProductRequest(id=product.id, etag=product.etag))
        await lose_response(proxy, delete, deleted)
        assert await deleted()
