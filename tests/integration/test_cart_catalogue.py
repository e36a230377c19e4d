"""Carts while the product service is busy or hangs: no change that was made is refused, and nobody waits for long."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from order.domain import Offer
from order.offers import Offers
from order.product_calls import ProductCalls
from order.stock import ProductUnavailable
from runtime.errors import queue_full
from tests.support.access import credential
from tests.support.carts import guest_cart, quantities
from tests.support.order import A, B, FakeStock, order_shop


class Busy(FakeStock):
    """A product service that refuses each second lookup."""

    lookups = 0

    async def get_offers(self, product_ids: Sequence[UUID]) -> Mapping[UUID, Offer]:
        self.lookups += 1
        if self.lookups % 2 == 0:
            raise queue_full()
        return await super().get_offers(product_ids)


async def test_change_that_was_made_is_never_refused(order_database: str) -> None:
    async with order_shop(order_database, Busy()) as shop:
        cart = await guest_cart(shop.carts)
        await cart.add(B)
        await cart.get()
        added = await cart.add(A)
        assert (quantities(added), added.stale) == ({B: 1, A: 1}, True)


class Hanging:
    """A product service that accepts calls and never responds."""

    async def BatchGetOffers(self, request: Any, timeout: float, metadata: Any) -> None:
        await asyncio.sleep(timeout)
        raise grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata())


async def test_hanging_product_service_delays_nobody_for_longer_than_one_lookup() -> None:
    hanging: Any = Hanging()
    offers = Offers(hanging, ProductCalls(credential()))
    clock = asyncio.get_running_loop().time
    start = clock()
    outcomes = await asyncio.gather(*(offers([uuid4()]) for _ in range(400)), return_exceptions=True)
    assert all(isinstance(each, ProductUnavailable) for each in outcomes)
    assert clock() - start < 3, "400 lookups would take 6 s, one batch after the other"
    with pytest.raises(ProductUnavailable):
        await offers([uuid4()])
    assert clock() - start < 3, "the next callers do not wait"
