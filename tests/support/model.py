"""A small model of the public API. Hypothesis makes random calls, as clients would, and the model predicts the results.

Both services run on a real PostgreSQL for the whole run. Each example has its own products and its own customer, so
earlier examples do not affect it.
"""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from shop.order.v1 import order_pb2
from shop.product.v1 import product_pb2

from order.domain import TRANSITIONS, Status
from tests.support.order import create_request, status_name
from tests.support.product import Refusal, euros
from tests.support.services import Services

ETAGS = st.sampled_from(["", "right", "old", "of another"])

MOVES = [status.value for status in Status if status is not Status.PLACED]


@dataclass
class Product:
    """What the model knows of a product."""

    id: str
    name: str
    stock: int
    price: int
    etag: str
    stale: str = ""
    """The etag that it had before the last change."""
    deleted: bool = False


@dataclass
class Order:
    """What the model knows of an order, by its key."""

    key: str
    items: dict[str, int]
    notes: str
    id: str = ""
    number: str = ""
    status: str = ""
    total: int = 0
    names: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    @property
    def version(self) -> int:
        return len(self.history)


def refused(answer: object, code: str, reason: str) -> None:
    assert isinstance(answer, Refusal), f"{answer} instead of {code} {reason}"
    assert (answer.code, answer.reason) == (code, reason), answer


class Shop(RuleBasedStateMachine):
    """What clients do, step by step. The test sets `both` before it runs."""

    both: Services

    products = Bundle("products")
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.email = f"{uuid4().hex}@example.com"
        self.known: dict[str, Product] = {}
        self.placed: list[Order] = []
        self.refused: list[Order] = []
        self.adjusted: dict[str, tuple[str, int]] = {}

    # --- the catalogue

    @initialize(target=products, stocks=st.lists(st.integers(3, 12), min_size=2, max_size=3))
    def begin(self, stocks: list[int]) -> Any:
        return multiple(*(self._new_product(stock, 1) for stock in stocks))

    def _new_product(self, stock: int, price: int) -> str:
        name = f"Thing {uuid4().hex}"
        made = self.both.run(self.both.products.create(name, stock=stock, price=euros(price)))
        self.known[made.id] = Product(made.id, name, stock, price, made.etag)
        return made.id

    @rule(product=products, price=st.integers(1, 9), etag=st.sampled_from(["", "right", "stale"]))
    def update_product(self, product: str, price: int, etag: str) -> None:
        before = self.known[product]
        change = product_pb2.Product(id=product, price=euros(price), etag=_etag(before, etag))
        request = product_pb2.UpdateProductRequest(product=change)
        answer = self.both.call_or_refusal(lambda: self.both.products.products.UpdateProduct(request))
        if before.deleted:
            return refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
        if etag == "stale" and before.stale:
            return refused(answer, "ABORTED", "ETAG_MISMATCH")
        assert isinstance(answer, product_pb2.Product)
        assert answer.etag != before.etag
        before.price, before.stale, before.etag = price, before.etag, answer.etag
        return None

    @rule(product=products, deleted=st.sampled_from([True, False, False]), etag=st.sampled_from(["", "right"]))
    def delete_or_undelete_product(self, product: str, deleted: bool, etag: str) -> None:
        self._delete(product, deleted=deleted, etag=etag)

    def _delete(self, product: str, *, deleted: bool, etag: str) -> None:
        before = self.known[product]
        stub, given = self.both.products.products, _etag(before, etag)

        async def call() -> product_pb2.Product:
            if deleted:
                return await stub.DeleteProduct(product_pb2.DeleteProductRequest(id=product, etag=given))
            return await stub.UndeleteProduct(product_pb2.UndeleteProductRequest(id=product, etag=given))

        answer = self.both.run(call())
        retried = self.both.run(call())  # with the etag of the first call
        for each in (answer, retried):
            assert each.HasField("delete_time") == deleted
        if before.deleted != deleted:
            before.stale, before.etag, before.deleted = before.etag, retried.etag, deleted

    @rule(product=products, delta=st.integers(-4, 4).filter(bool))
    def adjust_stock(self, product: str, delta: int) -> None:
        before, key = self.known[product], str(uuid4())
        answer = self.both.call_or_refusal(lambda: self.both.products.adjust(product, delta, key))
        if before.deleted:
            return refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
        if before.stock + delta < 0:
            return refused(answer, "FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
        before.stock += delta
        self.adjusted[key] = (product, delta)
        assert isinstance(answer, product_pb2.Product)
        assert answer.stock == before.stock
        return None

    @rule(data=st.data(), change=st.booleans(), header=st.booleans())
    def repeat_an_adjustment(self, data: st.DataObject, change: bool, header: bool) -> None:
        if not self.adjusted:
            return
        key = data.draw(st.sampled_from(list(self.adjusted)))
        product, delta = self.adjusted[key]
        headers = {"idempotency_key": key} if header else {}
        answer = self.both.call_or_refusal(
            lambda: self.both.products.adjust(product, delta + (5 if change else 0), "" if header else key, **headers)
        )
        if change and delta != -5:
            refused(answer, "ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
        elif not change:
            assert isinstance(answer, product_pb2.Product)
            assert answer.stock == self.known[product].stock

    # --- orders

    @rule(
        target=orders,
        wanted=st.lists(st.tuples(products, st.integers(1, 3)), min_size=1, max_size=3, unique_by=lambda each: each[0]),
        notes=st.sampled_from(["", "Ring twice"]),
    )
    def create_order(self, wanted: list[tuple[str, int]], notes: str) -> Any:
        order = Order(str(uuid4()), dict(wanted), notes)
        self._create(order)
        if order.status:
            return order
        self.refused.append(order)
        return multiple()

    @rule(target=orders, data=st.data())
    def retry_a_refused_order(self, data: st.DataObject) -> Any:
        """A refused order can be retried with its key, and may succeed by now."""
        if not self.refused:
            return multiple()
        order = data.draw(st.sampled_from(self.refused))
        self._create(order)
        if not order.status:
            return multiple()
        self.refused.remove(order)
        return order

    @rule(order=orders, turned=st.booleans())
    def retry_order(self, order: Order, turned: bool) -> None:
        """A retry returns the order as it is now, however its items are sorted."""
        if turned:
            order.items = dict(reversed(order.items.items()))
        self._create(order)

    @rule(order=orders, change=st.sampled_from(["notes", "quantity", "email"]))
    def reuse_a_key(self, order: Order, change: str) -> None:
        if answer := self._reuse(order, change):
            refused(answer, "ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")

    def _reuse(self, order: Order, change: str) -> Any:
        """Places an order with the key of another one. Returns the answer; nothing if it was checked already."""
        items = dict(order.items)
        if change == "quantity":
            items[next(iter(items))] += 1
        request = self._request(order, items)
        if change == "notes":
            request.notes += "!"
        elif change == "email":
            request.customer.email = f"x{self.email}"
        return self.both.call_or_refusal(lambda: self.both.orders.orders.CreateOrder(request))

    def _request(self, order: Order, items: dict[str, int]) -> order_pb2.CreateOrderRequest:
        return create_request(items, request_id=order.key, notes=order.notes, customer={"email": self.email})

    def _create(self, order: Order) -> None:
        answer = self.both.call_or_refusal(
            lambda: self.both.orders.orders.CreateOrder(self._request(order, order.items))
        )
        if not order.status:
            wanted = [self.known[each] for each in order.items]
            if any(each.deleted for each in wanted):
                return refused(answer, "FAILED_PRECONDITION", "PRODUCT_DELETED")
            if any(each.stock < order.items[each.id] for each in wanted):
                return refused(answer, "FAILED_PRECONDITION", "INSUFFICIENT_STOCK")
            self._place(order, answer)
        self._check(order, answer)
        return None

    def _place(self, order: Order, answer: object) -> None:
        """Notes an order that was placed."""
        assert isinstance(answer, order_pb2.Order), answer
        assert answer.number not in {each.number for each in self.placed}
        wanted = [self.known[each] for each in order.items]
        for each in wanted:
            each.stock -= order.items[each.id]
        order.id, order.number = answer.id, answer.number
        order.total = sum(each.price * order.items[each.id] for each in wanted)
        order.names = {each.id: each.name for each in wanted}
        self._set_status(order, "PLACED")
        self.placed.append(order)

    def _set_status(self, order: Order, status: str) -> None:
        order.status = status
        order.history.append(status)

    def _check(self, order: Order, answer: object) -> None:
        """Checks that an order is as the model says, whatever happened to its products since."""
        assert isinstance(answer, order_pb2.Order), answer
        assert (answer.id, answer.number, status_name(answer)) == (order.id, order.number, order.status)
        assert answer.etag == str(order.version)
        assert {item.product_id: item.quantity for item in answer.items} == order.items
        assert {item.product_id: item.name for item in answer.items} == order.names
        assert answer.total == euros(order.total)

    @rule(order=orders, to=st.sampled_from(MOVES), etag=ETAGS)
    def move(self, order: Order, to: str, etag: str) -> None:
        given = {"": "", "right": str(order.version), "old": str(order.version - 1), "of another": "17"}[etag]
        answer = self.both.call_or_refusal(lambda: self.both.orders.move(to, order.id, etag=given))
        if to != order.status:
            if Status(to) not in TRANSITIONS[Status(order.status)]:
                return refused(answer, "FAILED_PRECONDITION", "ILLEGAL_TRANSITION")
            if etag in ("old", "of another"):
                return refused(answer, "ABORTED", "ETAG_MISMATCH")
            self._set_status(order, to)
            if to == "CANCELLED":
                for product, quantity in order.items.items():
                    self.known[product].stock += quantity
                self._wait_for_stock(order)
        self._check(order, answer)
        return None

    @rule(order=orders, data=st.data(), etag=ETAGS)
    def advance(self, order: Order, data: st.DataObject, etag: str) -> None:
        """Makes a legal transition and retries it, with the etag of the first call."""
        targets = sorted(TRANSITIONS[Status(order.status)])
        if targets:
            to = data.draw(st.sampled_from(targets)).value
            self.move(order, to, etag)
            self.move(order, to, etag if order.status != to else "old")

    def _wait_for_stock(self, order: Order) -> None:
        """Waits until the stock of a cancelled order is back."""
        deadline = time.monotonic() + 10
        while any(self._stock(each) != self.known[each].stock for each in order.items):
            assert time.monotonic() < deadline, "the stock of a cancelled order did not come back"
            time.sleep(0.005)

    def _stock(self, product: str) -> int:
        return self.both.run(self.both.products.stock_of(product))

    @rule(order=orders)
    def follow(self, order: Order) -> None:
        """A stream has the order's history, each version once."""

        async def history() -> list[tuple[int, str]]:
            call = self.both.orders.stream(order.id)
            seen: list[tuple[int, str]] = []
            async for event in call:
                seen.append((event.version, status_name(event)))
                if len(seen) == order.version:
                    break
            call.cancel()
            return seen

        assert self.both.run(history()) == list(enumerate(order.history, start=1))

    @rule(status=st.sampled_from(["", "PLACED", "PROCESSED", "DELIVERED", "RECEIVED", "CANCELLED"]))
    def list_orders(self, status: str) -> None:
        """Lists this customer's orders in pages of two, the newest first."""
        request = order_pb2.ListOrdersRequest(customer_email=self.email.upper(), page_size=2)
        if status:
            request.status = order_pb2.Order.Status.Value(status)
        listed: list[str] = []
        while True:
            page = self.both.run(self._page(request))
            listed += [order.id for order in page.orders]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert listed == [each.id for each in reversed(self.placed) if status in ("", each.status)]

    async def _page(self, request: order_pb2.ListOrdersRequest) -> order_pb2.ListOrdersResponse:
        return await self.both.orders.orders.ListOrders(request)

    @invariant()
    def products_are_as_the_model_says(self) -> None:
        if not self.known:
            return
        request = product_pb2.BatchGetProductsRequest(ids=list(self.known))

        async def batch() -> product_pb2.BatchGetProductsResponse:
            return await self.both.products.products.BatchGetProducts(request)

        for found in self.both.run(batch()).products:
            model = self.known[found.id]
            assert (found.stock, found.etag, found.HasField("delete_time")) == (model.stock, model.etag, model.deleted)
            assert found.price == euros(model.price)


def _etag(product: Product, which: str) -> str:
    return {"": "", "right": product.etag, "stale": product.stale}[which]
