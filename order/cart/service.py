"""CartService: the public API of carts over gRPC."""

import logging
from collections.abc import Callable

from google.protobuf import empty_pb2
from shop.cart.v1 import cart_pb2, cart_pb2_grpc
from shop.order.v1 import order_pb2

from order.cart import parse
from order.cart.changes import Carts
from order.cart.checkout import CartCheckout
from order.cart.convert import cart_message
from order.cart.domain import CartView, Holder, hash_secret, new_secret, not_signed_in
from order.cart.merge import Merge
from order.cart.store import CartStore
from order.convert import order_message
from order.domain import Order
from order.outcomes import Outcomes
from order.stock import Stock
from order.store import OrderStore
from order.tickets import Kind, Tickets
from runtime.access.caller import current
from runtime.access.gate import CART_SECRET
from runtime.errors import invalid_argument
from runtime.headers import Context, expected_etag, header_values, request_key, send_etag
from runtime.shielded import run_shielded

log = logging.getLogger(__name__)

NAME = cart_pb2.DESCRIPTOR.services_by_name["CartService"].full_name


class CartService(cart_pb2_grpc.CartServiceServicer):
    """Checks requests, runs them, and converts the results. The proto documents the methods."""

    def __init__(
        self,
        store: CartStore,
        merge: Merge,
        orders: OrderStore,
        stock: Stock,
        tickets: Tickets,
        on_change: Callable[[Order], None],
        outcomes: Outcomes,
    ) -> None:
        """Initializes the service.

        Args:
            store: The carts.
            merge: Merges carts.
            orders: The orders.
            stock: The product service.
            tickets: Makes the tickets of guests' orders.
            on_change: Called after the commit of a new order.
            outcomes: Counts the checkouts.
        """
        self._store = store
        self._merge = merge
        self._carts = Carts(store, stock)
        self._checkout = CartCheckout(carts=store, orders=orders, stock=stock, on_change=on_change, outcomes=outcomes)
        self._tickets = tickets

    async def CreateCart(self, request: cart_pb2.CreateCartRequest, context: Context) -> cart_pb2.CreateCartResponse:
        if owner := current().subject:
            return cart_pb2.CreateCartResponse(cart=await self._owned(owner, context))
        secret = new_secret()
        cart = await self._store.create(hash_secret(secret))
        message = await _respond(await self._carts.show(cart), context)
        return cart_pb2.CreateCartResponse(cart=message, secret=secret)

    async def GetCart(self, request: cart_pb2.GetCartRequest, context: Context) -> cart_pb2.Cart:
        cart = await self._store.get(parse.cart_id(request), _holder(context))
        return await _respond(await self._carts.show(cart), context)

    async def GetMyCart(self, request: cart_pb2.GetMyCartRequest, context: Context) -> cart_pb2.Cart:
        return await self._owned(_owner(), context)

    async def _owned(self, owner: str, context: Context) -> cart_pb2.Cart:
        cart = await self._store.get_owned(owner)
        return await _respond(await self._carts.show(cart), context)

    async def AddCartItem(self, request: cart_pb2.AddCartItemRequest, context: Context) -> cart_pb2.Cart:
        parse.CONSTRAINTS.enforce(request)
        key = request_key(context, request.request_id)
        change = parse.added(request, _holder(context), key, parse.etag(expected_etag(context, "")))
        return await _respond(await self._carts.change(change), context)

    async def SetCartItem(self, request: cart_pb2.SetCartItemRequest, context: Context) -> cart_pb2.Cart:
        parse.CONSTRAINTS.enforce(request)
        expected = parse.etag(expected_etag(context, request.etag))
        return await _respond(await self._carts.change(parse.set_to(request, _holder(context), expected)), context)

    async def ClearCart(self, request: cart_pb2.ClearCartRequest, context: Context) -> cart_pb2.Cart:
        parse.CONSTRAINTS.enforce(request)
        expected = parse.etag(expected_etag(context, request.etag))
        return await _respond(await self._carts.change(parse.cleared(request, _holder(context), expected)), context)

    async def DeleteCart(self, request: cart_pb2.DeleteCartRequest, context: Context) -> empty_pb2.Empty:
        cart_id = parse.cart_id(request)
        await self._store.delete(cart_id, _holder(context), parse.etag(expected_etag(context, request.etag)))
        return empty_pb2.Empty()

    async def MergeCart(self, request: cart_pb2.MergeCartRequest, context: Context) -> cart_pb2.Cart:
        cart_id, secret = parse.merged(request)
        cart, capped = await self._merge(cart_id, hash_secret(secret), _owner())
        return await _respond(await self._carts.show(cart, capped), context)

    async def CheckoutCart(self, request: cart_pb2.CheckoutCartRequest, context: Context) -> order_pb2.Order:
        purchase = parse.purchase(request, expected_etag(context, request.etag))
        who = current()
        # Shielded: a client that disconnects between the two steps leaves no hold behind.
        order = await run_shielded(
            self._checkout.place(purchase, _holder(context), who, context.time_remaining()),
        )
        await send_etag(context, order.etag)
        response = order_message(order)
        # Also for a customer who has signed in since the checkout: the order is nobody's, so only the ticket opens it.
        if not order.owner and (who.is_guest or who.subject):
            response.ticket = self._tickets.issue(Kind.ORDER, order.id).text
        return response


def _owner() -> str:
    """Returns whose cart a signed-in caller's is. Raises FAILED_PRECONDITION if the shop verifies no tokens."""
    if not (owner := current().subject):
        raise not_signed_in()
    return owner


def _holder(context: Context) -> Holder:
    """Returns who makes a call. Raises INVALID_ARGUMENT if two secrets were sent: one of them is not the client's."""
    sent = header_values(context, CART_SECRET)
    if len(sent) > 1:
        raise invalid_argument([(CART_SECRET, "must be sent once")])
    return Holder(current().subject, hash_secret(sent[0]) if sent else None)


async def _respond(view: CartView, context: Context) -> cart_pb2.Cart:
    """Returns a cart as a response, and sends its etag as a header."""
    await send_etag(context, str(view.cart.etag))
    return cart_message(view)
