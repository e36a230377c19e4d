"""Buys through a cart, once, as a guest of the shop does. Each step may be repeated: together they place one order."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import grpc
from google.type import money_pb2
from shop.cart.v1 import cart_pb2, cart_pb2_grpc
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2, product_pb2_grpc

from demo.calls import CALL_TIMEOUT, Retries
from runtime.access.gate import CART_SECRET
from runtime.cli import CommandError
from runtime.currencies import decimal_text
from runtime.money import MICROS, NANOS_PER_MICRO

BUY_TIMEOUT = 30.0
"""Seconds to wait for the services."""

PAGE_SIZE = 100
"""The newest products, from which the buyer chooses."""

MAX_PRODUCTS = 3
"""Products in a cart."""

CUSTOMER = order_pb2.Customer(name="Ada Lovelace", email="ada@example.com", phone="+44 20 7946 0000")
ADDRESS = "12 St James's Square, London"

R = TypeVar("R")


@dataclass(frozen=True)
class Buyer:
    """Buys products that are in stock."""

    to_product: grpc.aio.Channel
    to_order: grpc.aio.Channel
    timeout: float = BUY_TIMEOUT
    """Seconds to wait while a service is unavailable."""

    async def buy(self) -> order_pb2.Order:
        """Puts up to MAX_PRODUCTS products into a new cart, and orders the cart at the total that it shows.

        Raises:
            CommandError: Nothing is in stock, or a service stayed unavailable or refused a call.
        """
        products = choose(await self._list_products())
        carts = cart_pb2_grpc.CartServiceStub(self.to_order)
        # A retry leaves an empty cart behind, which ends by itself.
        created = await self._ordering(carts.CreateCart, cart_pb2.CreateCartRequest())
        cart, holder = created.cart, ((CART_SECRET, created.secret),)
        for product in products:
            more = cart_pb2.AddCartItemRequest(id=cart.id, product_id=product.id, quantity=1, request_id=str(uuid4()))
            cart = await self._ordering(carts.AddCartItem, more, holder)
        checkout = cart_pb2.CheckoutCartRequest(
            id=cart.id,
            etag=cart.etag,
            expected_total=cart.total if cart.HasField("total") else None,
            customer=CUSTOMER,
            shipping_address=ADDRESS,
            payment_method="CARD",
            notes="bought by the demo",
        )
        return await self._ordering(carts.CheckoutCart, checkout, holder)

    async def _list_products(self) -> Sequence[product_pb2.Product]:
        stub = product_pb2_grpc.ProductServiceStub(self.to_product)
        request = product_pb2.ListProductsRequest(page_size=PAGE_SIZE)
        return (await self._call("product", stub.ListProducts, request)).products

    async def _ordering(
        self, method: Callable[..., Awaitable[R]], request: object, metadata: Sequence[tuple[str, str]] = ()
    ) -> R:
        return await self._call("order", method, request, metadata)

    async def _call(
        self,
        service: str,
        method: Callable[..., Awaitable[R]],
        request: object,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> R:
        retries = Retries(service, self.timeout)
        while True:
            try:
                return await method(request, timeout=CALL_TIMEOUT, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                await retries.wait(error)


def choose(products: Sequence[product_pb2.Product]) -> list[product_pb2.Product]:
    """Returns up to MAX_PRODUCTS products that one order can have. Raises CommandError if nothing is in stock."""
    in_stock = [each for each in products if each.stock > 0]
    if not in_stock:
        raise CommandError("no product is in stock: increase the stock of one (AdjustStock), or create a product")
    currency = random.choice(in_stock).price.currency_code  # noqa: S311 - no secret
    alike = [each for each in in_stock if each.price.currency_code == currency]
    return random.sample(alike, min(random.randint(1, MAX_PRODUCTS), len(alike)))  # noqa: S311 - as above


def summary(order: order_pb2.Order) -> str:
    """Returns an order in one line, for people."""
    items = ", ".join(f'{each.quantity} × "{each.name}"' for each in order.items)
    return f"order {order.number} placed: {items}; total {_text(order.total)}; id {order.id}"


def _text(money: money_pb2.Money) -> str:
    micros = money.units * MICROS + money.nanos // NANOS_PER_MICRO
    return f"{decimal_text(money.currency_code, micros)} {money.currency_code}"
