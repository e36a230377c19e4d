"""A shop's products, orders, carts and callers for the matrix, and the check of its cells."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from tests.support.auth_callers import Keys, Tokens, bearer, forged, smuggled
from tests.support.auth_carts import Carts, KnownCart, secrets_of, with_secret_of
from tests.support.auth_doors import TICKET_PARAMETER, Answer, Door, Events, Grpc, Headers, RestDoor, Web, invoke
from tests.support.auth_matrix import (
    BAD_TOKENS,
    HTTP,
    OK,
    SECRETS,
    TICKETS,
    Identity,
    Method,
    Mode,
    Outcome,
    expected,
    methods,
    named,
)
from tests.support.auth_requests import SAMPLES, Kind, Subject, new_order, new_product

CONCURRENCY = 40
"""Calls at the same time. A process lets 50 calls wait for the keys of tokens, and refuses more."""


@dataclass(frozen=True)
class World:
    """What the calls are about, and what each identity sends."""

    mode: Mode
    products: Grpc
    orders: Grpc
    headers: Mapping[Identity, Headers]
    url_tickets: Mapping[Identity, str]
    """What those send in the URL of a stream who send a ticket."""
    product: str
    """No call may change it."""
    ordered: str
    """The product of orders and reservations."""
    owners_order: str
    guests_order: str
    carts: Carts
    owners_cart: KnownCart
    """`check` looks it up anew, since calls may have ended it."""
    guests_cart: KnownCart
    smuggled: Headers = ()

    async def state(self) -> Sequence[object]:
        """Returns what no refused call may change: the product, the orders, which ones there are, and the carts."""
        staff = self.headers[Identity.STAFF]

        async def order(verb: str, **fields: Any) -> Any:
            request = getattr(order_pb2, f"{verb}Request")(**fields)
            return await invoke(self.orders.channel, named(f"shop.order.v1.OrderService.{verb}"), request, staff)

        products, orders = await self._product("ListProducts"), await order("ListOrders")
        return (
            await self._product("GetProduct", id=self.product),
            *[await order("GetOrder", id=each) for each in (self.owners_order, self.guests_order)],
            *(each.id for each in (*products.products, *orders.orders)),
            *[await self.carts.state(each) for each in (self.owners_cart, self.guests_cart)],
        )

    def subject(self, identity: Identity) -> Subject:
        """Returns what the calls of an identity are about that change nothing."""
        order = self.guests_order if identity in TICKETS else self.owners_order
        staff = dict(self.headers[Identity.STAFF]).get("authorization", "")
        cart, guests = self.guests_cart if identity in SECRETS else self.owners_cart, self.guests_cart
        return Subject(self.product, order, staff, cart.id, cart.etag, guests.id, guests.secret)

    async def new_cart(self, identity: Identity) -> KnownCart:
        """Returns a cart that the identity can change: a new one of a guest, if it sends a secret, or its own one."""
        return await (self.carts.guests() if identity in SECRETS else self.carts.of(identity))

    async def new_subject(self, kind: Kind) -> Subject:
        """Makes a product, and an order of the owner, that one call can change."""
        product = (await self._product("CreateProduct", product=new_product())).id
        if kind == "deleted product":
            await self._product("DeleteProduct", id=product)
        order = ""
        if kind in VERBS:
            order = (await create_order(self.orders, product, self.headers[Identity.OWNER])).id
            for verb in VERBS[kind]:
                request = getattr(order_pb2, f"{verb}Request")(id=order)
                method = named(f"shop.order.v1.OrderService.{verb}")
                await invoke(self.orders.channel, method, request, self.headers[Identity.STAFF])
        return replace(self.subject(Identity.STAFF), product=product, order=order)

    async def _product(self, verb: str, **fields: Any) -> Any:
        return await call_products(self.products, self.headers[Identity.STAFF], verb, **fields)


VERBS: Mapping[str, tuple[str, ...]] = {
    "PLACED": (),
    "PROCESSED": ("ProcessOrder",),
    "DELIVERED": ("ProcessOrder", "DeliverOrder"),
}
"""What brings a new order into a status."""


async def call_products(products: Grpc, staff: Headers, verb: str, **fields: Any) -> Any:
    request = getattr(product_pb2, f"{verb}Request")(**fields)
    return await invoke(products.channel, named(f"shop.product.v1.ProductService.{verb}"), request, staff)


async def create_order(orders: Grpc, product: str, headers: Headers) -> order_pb2.Order:
    made: order_pb2.Order = await invoke(
        orders.channel, named("shop.order.v1.OrderService.CreateOrder"), new_order(product), headers
    )
    return made


async def create_world(mode: Mode, products: Grpc, orders: Grpc, tokens: Tokens, keys: Keys) -> World:
    """Makes products, orders and carts, and what each identity sends.

    Args:
        mode: How the shop is configured.
        products: Reaches the product service.
        orders: Reaches the order service.
        tokens: The tokens of the shop's issuer, and bad ones.
        keys: The shop's own secrets.
    """
    headers: dict[Identity, Headers] = {Identity.NOBODY: ()}
    for identity in (*BAD_TOKENS, Identity.OWNER, Identity.ANOTHER_CUSTOMER, Identity.STAFF):
        if token := tokens(identity):
            headers[identity] = bearer(token)
    staff = headers[Identity.STAFF][0][1]
    headers[Identity.OTHER_SCHEME] = (("authorization", f"Basic {staff.partition(' ')[2]}"),)
    headers[Identity.TWO_TOKENS] = (*headers[Identity.STAFF], *headers[Identity.STAFF])
    if keys.credential:
        headers[Identity.CREDENTIAL] = (("x-shop-credential", keys.credential),)
    headers[Identity.WRONG_CREDENTIAL] = (("x-shop-credential", "0123456789abcdef" * 4),)

    product, ordered = [
        (await call_products(products, headers[Identity.STAFF], "CreateProduct", product=new_product())).id
        for _ in range(2)
    ]
    carts = Carts(mode, orders, headers, ordered)
    guests_cart = await carts.guests()
    owners = await create_order(orders, ordered, headers[Identity.OWNER])
    guest = headers[Identity.NOBODY if mode.guests else Identity.STAFF]
    first, second = [await create_order(orders, ordered, guest) for _ in range(2)]
    tickets, url_tickets = await _tickets(orders, keys, first, second, headers[Identity.STAFF])
    headers |= {identity: (("order-ticket", ticket),) for identity, ticket in tickets.items()}
    if Identity.TICKET in tickets:
        headers[Identity.CUSTOMER_WITH_TICKET] = (
            *headers[Identity.ANOTHER_CUSTOMER],
            *headers[Identity.TICKET],
        )
        headers[Identity.BAD_TOKEN_WITH_TICKET] = (*headers[Identity.MALFORMED], *headers[Identity.TICKET])
    headers |= secrets_of(guests_cart, await carts.guests(), headers)
    return World(
        mode,
        products,
        orders,
        headers,
        url_tickets,
        product,
        ordered,
        owners.id,
        first.id,
        carts,
        owners_cart=await carts.of(Identity.OWNER),
        guests_cart=guests_cart,
        smuggled=smuggled(keys.credential),
    )


async def _tickets(
    orders: Grpc, keys: Keys, order: order_pb2.Order, other: order_pb2.Order, staff: Headers
) -> tuple[dict[Identity, str], dict[Identity, str]]:
    """Returns the tickets that go into a header, and those that go into a URL."""

    async def stream_ticket(order_id: str) -> str:
        request = order_pb2.CreateOrderTicketRequest(id=order_id)
        method = named("shop.order.v1.OrderService.CreateOrderTicket")
        made: order_pb2.CreateOrderTicketResponse = await invoke(orders.channel, method, request, staff)
        return made.ticket

    in_url = {
        Identity.STREAM_TICKET: await stream_ticket(order.id),
        Identity.OTHER_TICKET: await stream_ticket(other.id),
    }
    in_header = {Identity.STREAM_TICKET: in_url[Identity.STREAM_TICKET]}
    if keys.tickets:
        for identity, about in ((Identity.TICKET, order), (Identity.OTHER_TICKET, other)):
            in_header[identity] = about.ticket or keys.ticket("order", about.id, 60)
        in_header[Identity.EXPIRED_TICKET] = keys.ticket("order", order.id, -1)
        in_url[Identity.EXPIRED_TICKET] = keys.ticket("stream", order.id, -1)
    elif order.ticket:
        in_header |= {Identity.TICKET: order.ticket, Identity.OTHER_TICKET: other.ticket}
    if Identity.TICKET in in_header:
        in_url[Identity.TICKET] = in_header[Identity.TICKET]
        in_header[Identity.FORGED_TICKET] = forged(in_header[Identity.TICKET])
    in_url[Identity.FORGED_TICKET] = forged(in_url[Identity.STREAM_TICKET])
    return in_header, in_url


def at_edge(method: Method, identity: Identity, mode: Mode) -> Outcome:
    """Returns what the edge must answer. It routes no internal service, and removes the credential."""
    if identity in (Identity.CREDENTIAL, Identity.WRONG_CREDENTIAL):
        identity = Identity.NOBODY
    if method.level == "INTERNAL":
        return Outcome("UNIMPLEMENTED")
    return expected(method, identity, mode)


def in_url(method: Method, identity: Identity, mode: Mode) -> Outcome:
    """Returns what a stream with this ticket in its URL must answer. Only stream tickets are for URLs."""
    if identity is Identity.TICKET:
        return Outcome("UNAUTHENTICATED", "TICKET_INVALID") if mode.tokens else OK
    return expected(method, identity, Mode(mode.tokens, guests=True))


Wanted = Callable[[Method, Identity, Mode], Outcome]
Doors = Sequence[tuple[Door, Wanted]]
"""Ways into a shop, each with what says what a caller must get there."""


@dataclass(frozen=True)
class Cell:
    """One call."""

    door: Door
    method: Method
    wanted: Outcome
    smuggled: bool = False
    """Whether headers are sent as well that must not change anything."""


async def check(doors: Doors, world: World, identity: Identity) -> list[str]:
    """Calls every method that these doors serve. Returns what is not as it must be, in a line for each cell.

    Refused calls are also made with headers that must not change anything.
    """
    world = replace(world, owners_cart=await world.carts.of(Identity.OWNER))
    cells = [
        Cell(door, method, wanted(method, identity, world.mode))
        for door, wanted in doors
        for method in methods()
        if door.serves(method)
    ]
    refused = [cell for cell in cells if cell.wanted != OK]
    before = await world.state()
    found = await _check_all(refused, world, identity)
    if identity is not Identity.UNKNOWN_KEY:  # each of its calls waits until the keys are fetched again
        found += await _check_all([replace(cell, smuggled=True) for cell in refused], world, identity)
    if await world.state() != before:
        found.append(f"{identity}: a refused call has changed something")
    return found + await _check_all([cell for cell in cells if cell.wanted == OK], world, identity)


async def _check_all(cells: Sequence[Cell], world: World, identity: Identity) -> list[str]:
    limit = asyncio.Semaphore(CONCURRENCY)

    async def check_one(cell: Cell) -> str:
        async with limit:
            return await _check(cell, world, identity)

    return [each for each in await asyncio.gather(*map(check_one, cells)) if each]


async def _check(cell: Cell, world: World, identity: Identity) -> str:
    """Makes a call. Returns what is not as it must be, in a line; empty if all is."""
    sample = SAMPLES[cell.method.full_name]
    headers = world.headers.get(identity, ())
    subject = world.subject(identity)
    if cell.door.name == IN_URL:
        headers = ((TICKET_PARAMETER, world.url_tickets[identity]),)
    if cell.wanted == OK and sample.changes in ("cart", "guest's cart"):
        async with world.carts.changing:
            cart, guests = await world.new_cart(identity), await world.carts.guests()
            subject = replace(subject, product=world.ordered, cart=cart.id, etag=cart.etag)
            subject = replace(subject, guests_cart=guests.id, secret=guests.secret)
            return await _call(cell, world, identity, subject, with_secret_of(cart, headers))
    if cell.wanted == OK:
        made = await world.new_subject(sample.changes) if sample.changes else None
        subject = made or replace(subject, product=world.ordered)
    return await _call(cell, world, identity, subject, headers)


async def _call(cell: Cell, world: World, identity: Identity, subject: Subject, headers: Headers) -> str:
    door, method = cell.door, cell.method
    more = world.smuggled if cell.smuggled else ()
    if method.level == "INTERNAL" and not door.is_edge:
        more = tuple(each for each in more if each[0] != "x-shop-credential")  # it would open the method
    request = SAMPLES[method.full_name].make(subject)
    answer = await door.call(method, request, (*headers, *more))
    found = "; ".join(problems(answer, cell.wanted, door, headers))
    with_more = ", smuggled headers" if cell.smuggled else ""
    return found and f"{door.name}, {method.full_name}, {identity}{with_more}: {found}"


IN_URL = "an EventSource with a ticket in its URL"
"""The name of that door."""


def problems(answer: Answer, wanted: Outcome, door: Door, headers: Headers) -> Iterable[str]:
    """Yields what is wrong with an answer."""
    if answer.problem:
        yield f"{answer.problem}: {answer.text}"
    if wanted.code == "UNIMPLEMENTED":
        # The edge may look at the token before it looks at the path.
        refused_token = answer.code == "UNAUTHENTICATED" and answer.reason in ("TOKEN_INVALID", "TOKEN_EXPIRED")
        if answer.code not in ("UNIMPLEMENTED", "NOT_FOUND") and not refused_token:
            yield f"{answer.code}, and not UNIMPLEMENTED: {answer.text}"
        return
    if (answer.code, answer.reason) != (wanted.code, wanted.reason):
        yield f"{answer.code} {answer.reason}, and not {wanted.code} {wanted.reason}: {answer.text}"
    if isinstance(door, RestDoor | Events) and answer.http != HTTP[wanted.code]:
        yield f"HTTP status {answer.http}, and not {HTTP[wanted.code]}"
    if isinstance(door, Web) and answer.http not in (200, HTTP[wanted.code]):
        yield f"HTTP status {answer.http}"
    challenge = 'Bearer realm="shop"' if wanted.code == "UNAUTHENTICATED" else ""
    if wanted.reason in ("TOKEN_INVALID", "TOKEN_EXPIRED"):
        challenge += ', error="invalid_token"'
    if answer.challenge != challenge:
        yield f"WWW-Authenticate is {answer.challenge!r}, and not {challenge!r}"
    for name, value in headers:
        secret = value.rpartition(" ")[2]
        if len(secret) > 15 and secret in answer.text:
            yield f"the answer repeats what was sent as {name}"
