"""Offers: what products cost now, and how many pieces one order can have, for carts."""

from collections.abc import AsyncIterator, Sequence

import pytest
from shop.product.v1 import product_pb2, stock_pb2

from product.domain import MAX_STOCK
from runtime.pages import MAX_PAGE_BYTES
from tests.support.product import UNKNOWN, ProductShop, euros, product_shop, refused
from tests.support.requests import max_items, max_length

MAX_IDS = max_items(stock_pb2.BatchGetOffersRequest, "product_ids")
WIDE = "\U0001f381"
"""A character of four bytes, which is the most."""


@pytest.fixture
async def shop(product_database: str) -> AsyncIterator[ProductShop]:
    async with product_shop(product_database) as shop:
        yield shop


async def offers(shop: ProductShop, *ids: str) -> Sequence[stock_pb2.Offer]:
    response = await shop.stock.BatchGetOffers(stock_pb2.BatchGetOffersRequest(product_ids=ids))
    return sorted(response.offers, key=lambda each: ids.index(each.product_id))


async def test_offers_are_present_prices_and_stock(shop: ProductShop) -> None:
    band, watch = await shop.create("Band", stock=3), await shop.create("Watch", stock=7)
    await shop.update(band.id, name="Strap", price=euros(2.25))
    await shop.reserve({watch.id: 7})
    assert await offers(shop, watch.id, UNKNOWN, band.id) == [
        stock_pb2.Offer(product_id=watch.id, name="Watch", unit_price=euros(12.5), available=0),
        stock_pb2.Offer(product_id=band.id, name="Strap", unit_price=euros(2.25), available=3),
    ]
    assert await offers(shop, UNKNOWN) == []


async def test_deleted_product_has_no_pieces(shop: ProductShop) -> None:
    """It keeps its name and price, by which a cart shows what is gone."""
    watch = await shop.create("Watch", stock=7)
    await shop.delete(watch.id)
    (gone,) = await offers(shop, watch.id)
    assert gone == stock_pb2.Offer(product_id=watch.id, name="Watch", unit_price=euros(12.5), deleted=True)
    await shop.undelete(watch.id)
    (again,) = await offers(shop, watch.id)
    assert (again.available, again.deleted) == (7, False)


async def test_no_more_is_offered_than_an_order_can_have(shop: ProductShop) -> None:
    """Cancelled orders may bring the stock above the limit."""
    watch = await shop.create(stock=MAX_STOCK)
    held = await shop.reserve({watch.id: 5})
    await shop.adjust(watch.id, 5)
    await shop.release(held.id)
    assert await shop.stock_of(watch.id) == MAX_STOCK + 5
    (offer,) = await offers(shop, watch.id)
    assert offer.available == MAX_STOCK


async def test_most_products_with_longest_names_fit(shop: ProductShop) -> None:
    longest = await shop.create(WIDE * max_length(product_pb2.Product, "name"), stock=MAX_STOCK, price=euros(10**9))
    async with shop.connection() as connection:
        rows = await connection.execute(
            """
            INSERT INTO product (
                id, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri
            )
            SELECT gen_random_uuid(), name, n, n, variant, description, category, currency, price_micros, stock, star,
                image_uri
            FROM product CROSS JOIN generate_series(2, %s) AS n WHERE id = %s
            RETURNING id::text
            """,
            (MAX_IDS, longest.id),
        )
        ids = [longest.id, *(row[0] for row in await rows.fetchall())]
    request = stock_pb2.BatchGetOffersRequest(product_ids=ids)
    response = await shop.stock.BatchGetOffers(request)
    assert {each.product_id for each in response.offers} == set(ids)
    assert MAX_PAGE_BYTES / 4 < response.ByteSize() < MAX_PAGE_BYTES


async def test_malformed_requests_are_rejected(shop: ProductShop) -> None:
    for ids, field in (
        ([], "product_ids"),
        (["x"], "product_ids[0]"),
        ([UNKNOWN] * 2, "product_ids[1]"),
        ([UNKNOWN] * (MAX_IDS + 1), "product_ids"),
    ):
        with refused() as error:
            await offers(shop, *ids)
        assert (error.code, next(iter(error.fields))) == ("INVALID_ARGUMENT", field)
