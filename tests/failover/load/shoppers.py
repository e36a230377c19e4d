"""Customers that order, fill carts and check out, and staff that moves orders on, at a steady rate."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from uuid import uuid4

from tests.failover.load.http import Http
from tests.failover.load.streams import Streams
from tests.failover.load.tally import Cart, Order, Refused, Send, Tally

RATES = {"order": 3.0, "cart": 1.0, "move": 3.0, "read": 2.0}
"""How many of each arrive in a second. A cart is five calls and a checkout."""

STATUSES = ("PLACED", "PROCESSED", "DELIVERED", "RECEIVED")
VERBS = {"PLACED": "process", "PROCESSED": "deliver", "DELIVERED": "receive"}
CUSTOMER = {"name": "Ada", "email": "ada@example.com"}
MAX_CHECKOUTS = 5
"""How often a customer reads the cart and checks out again."""


class Shoppers:
    """All clients."""

    def __init__(self, http: Http, streams: Streams) -> None:
        self._http = http
        self._streams = streams
        self._products: list[str] = []
        self.watched: dict[str, Order] = {}
        """The orders that are watched and not yet RECEIVED, by id."""
        self._moving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrivals: list[asyncio.Task[None]] = []
        self._wanted = 0
        self.tally = Tally()
        self.moved: dict[tuple[str, int], float] = {}
        """When each version of an order was acknowledged, in seconds since the epoch."""

    async def stock_up(self, products: int, stock: int) -> None:
        for number in range(products):
            price = {"currencyCode": "EUR", "units": str(number + 1), "nanos": 0}
            body = {"name": f"Thing {number} {uuid4()}", "price": price, "stock": str(stock)}
            made = await self.tally.insist("CreateProduct", partial(self._post, "/api/v1/products", body))
            self._products.append(made["id"])

    async def watch(self, number: int) -> None:
        """Places orders and watches each."""
        gate = asyncio.Semaphore(4)

        async def place() -> None:
            async with gate:
                await self._order()

        self._wanted = number
        await asyncio.gather(*(place() for _ in range(number)))
        await self._streams.until(dict.fromkeys(self.watched, 1), 60)

    def start(self) -> None:
        """Lets clients arrive."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "order": self._order,
            "cart": self._cart,
            "move": self._move,
            "read": self._read,
        }
        self._arrivals = [asyncio.create_task(self._arrive(RATES[name], job)) for name, job in jobs.items()]

    async def stop(self) -> None:
        """Lets no more clients arrive, and waits until each has its response."""
        for task in self._arrivals:
            task.cancel()
        await asyncio.gather(*self._arrivals, return_exceptions=True)
        await asyncio.gather(*self._tasks)

    def versions(self) -> dict[str, int]:
        """Returns the acknowledged version of each order that is watched."""
        return {order_id: STATUSES.index(order.status) + 1 for order_id, order in self.watched.items()}

    def forget(self) -> None:
        """Begins a new tally, and drops watched orders that have reached their end."""
        self.tally = Tally()
        self.moved.clear()
        self.watched = {key: each for key, each in self.watched.items() if each.status != STATUSES[-1]}

    async def _arrive(self, rate: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            task = asyncio.create_task(self._guarded(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(random.uniform(0.8, 1.2) / rate)

    async def _guarded(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await job()
        except Exception as error:
            self.tally.problems.append(f"{type(error).__name__}: {error}")

    async def _order(self) -> None:
        order = self._new_order(from_cart=False)

        async def send() -> tuple[int, Any]:
            body = {"items": _as_items(order.items), "customer": CUSTOMER, "notes": order.key}
            return await self._post("/api/v1/orders", body, {"idempotency-key": order.key})

        while not order.status:
            try:
                await self._place(order, "CreateOrder", send)
            except Refused as refused:
                if refused.reason != "ORDER_EXPIRED" or order.answers:
                    raise
                # Nothing was ordered, and the response says to use a new key.
                order.key = str(uuid4())
        if self._streams.live < self._wanted:
            self.watched[order.id] = order
            self._streams.add(order.id)

    async def _cart(self) -> None:
        created = await self.tally.insist("CreateCart", lambda: self._post("/api/v1/carts", {}))
        cart, headers = Cart(created["cart"]["id"]), {"cart-secret": created["secret"]}
        self.tally.carts.append(cart)
        path = f"/api/v1/carts/{cart.id}"
        first, second = random.sample(self._products, 2)
        for product, quantity in ((first, random.randint(1, 3)), (second, random.randint(1, 3))):
            body = {"productId": product, "quantity": quantity, "requestId": str(uuid4())}
            await self.tally.insist("AddCartItem", partial(self._post, f"{path}:add", body, headers))
            cart.put_in[product] = quantity
        changed = {"productId": first, "quantity": cart.put_in[first] + 1}
        await self.tally.insist("SetCartItem", lambda: self._post(f"{path}:set", changed, headers))
        cart.put_in[first] += 1
        # Some carts stay as they are.
        if random.random() < 0.75:
            await self._check_out(cart, path, headers)

    async def _check_out(self, cart: Cart, path: str, headers: dict[str, str]) -> None:
        order = self._new_order(from_cart=True)
        for _ in range(MAX_CHECKOUTS):
            shown = await self.tally.insist("GetCart", lambda: self._http.request("GET", path, None, headers))
            order.items = {each["productId"]: int(each["quantity"]) for each in shown["items"]}
            if order.items != cart.put_in:
                self.tally.problems.append(f"cart {cart.id} has {order.items}, not {cart.put_in}")
            body = {"etag": shown["etag"], "customer": CUSTOMER, "notes": order.key}

            async def send(body: Any = body) -> tuple[int, Any]:
                return await self._post(f"{path}:checkout", body, headers)

            try:
                await self._place(order, "CheckoutCart", send)
                return
            except Refused as refused:
                if refused.reason not in ("CART_CHANGED", "ORDER_EXPIRED"):
                    raise
        self.tally.problems.append(f"cart {cart.id} could not be ordered with {MAX_CHECKOUTS} etags")

    def _new_order(self, *, from_cart: bool) -> Order:
        items = {each: random.randint(1, 3) for each in random.sample(self._products, random.randint(1, 2))}
        order = Order(str(uuid4()), items, from_cart)
        self.tally.orders.append(order)
        return order

    async def _place(self, order: Order, operation: str, send: Send) -> None:
        """Places an order. One in five clients asks once more, as if the response was lost."""
        for attempt in range(1 + (random.random() < 0.2)):
            made = await self.tally.insist(operation, send)
            order.answers.append((made["id"], made["number"]))
            if not attempt:
                order.id, order.number, order.status = made["id"], made["number"], made["status"]
                self.tally.acknowledged.append(time.time())
                self.moved[order.id, 1] = time.time()

    async def _move(self) -> None:
        """Moves a watched order on."""
        candidates = [each for each in self.watched.values() if each.status in VERBS and each.id not in self._moving]
        if not candidates:
            return
        order = random.choice(candidates)
        verb = VERBS[order.status]
        self._moving.add(order.id)
        try:
            path = f"/api/v1/orders/{order.id}:{verb}"
            made = await self.tally.insist(f"{verb.capitalize()}Order", lambda: self._post(path, {}))
            order.status = made["status"]
            self.moved[order.id, STATUSES.index(order.status) + 1] = time.time()
        finally:
            self._moving.discard(order.id)

    async def _read(self) -> None:
        if random.random() < 0.5:
            path = f"/api/v1/products/{random.choice(self._products)}"
            await self.tally.insist("GetProduct", lambda: self._http.request("GET", path))
            return
        order = random.choice(list(self.watched.values()))
        version = order.status
        path = f"/api/v1/orders/{order.id}"
        seen = (await self.tally.insist("GetOrder", lambda: self._http.request("GET", path)))["status"]
        if STATUSES.index(seen) < STATUSES.index(version):
            self.tally.problems.append(f"order {order.id} was {version} and is read as {seen}")

    async def _post(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        return await self._http.request("POST", path, body, headers)


def _as_items(items: dict[str, int]) -> list[dict[str, Any]]:
    return [{"productId": product, "quantity": quantity} for product, quantity in items.items()]
