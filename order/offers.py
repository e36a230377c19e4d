"""Offers: what the product service says about the products in carts, over gRPC. Concurrent lookups share a call."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import grpc
from shop.product.v1 import stock_pb2, stock_pb2_grpc

from order import stock
from order.domain import Offer
from order.product_calls import ProductCalls
from order.stock import ProductUnavailable
from runtime.batch import Batcher
from runtime.money import micros_of
from runtime.prices import Price

PAUSE = 1.0
"""For how long no offers are looked up after the product service took too long, in seconds."""


class Offers:
    """Looks offers up."""

    def __init__(self, stub: "stock_pb2_grpc.StockServiceAsyncStub", calls: ProductCalls) -> None:
        self._stub = stub
        self._call = calls
        self._away_until = 0.0
        self._lookups = Batcher[Sequence[UUID], Mapping[UUID, Offer]](
            "stock.get_offers", self._look_up, max_size=stock.MAX_OFFER_LOOKUPS, max_waiting=stock.MAX_WAITING
        )

    async def __call__(self, product_ids: Sequence[UUID]) -> Mapping[UUID, Offer]:
        """Returns the offers of products. See `Stock.get_offers`."""
        clock = asyncio.get_running_loop().time
        if clock() < self._away_until:
            raise ProductUnavailable
        try:
            async with asyncio.timeout(stock.OFFERS_TIMEOUT):
                return await self._lookups(product_ids)
        except TimeoutError:
            # The next callers do not wait as long for the same.
            self._away_until = clock() + PAUSE
            raise ProductUnavailable from None

    async def _look_up(self, lookups: Sequence[Sequence[UUID]]) -> Sequence[Mapping[UUID, Offer]]:
        ids = {str(each) for lookup in lookups for each in lookup}
        request = stock_pb2.BatchGetOffersRequest(product_ids=ids)
        try:
            response = await self._call(self._stub.BatchGetOffers, request, stock.OFFERS_TIMEOUT)
        except grpc.aio.AioRpcError:
            raise ProductUnavailable from None
        # All callers get the same offers: each reads those of its own products.
        offers = {UUID(each.product_id): _offer(each) for each in response.offers}
        return [offers] * len(lookups)


def _offer(offer: stock_pb2.Offer) -> Offer:
    price = offer.unit_price
    return Offer(offer.name, Price(price.currency_code, micros_of(price)), offer.available, offer.deleted)
