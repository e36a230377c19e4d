"""The life of an order under traces: who calls what, and the spans that must come of it."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.otlp import Receiver
from tests.support.rest import Rest

CALLER = "b7ad6b7169203331"
"""The span of the caller, which is the parent of the edge's."""

_EDGE = "shop-edge ingress"
_ADD = f"{_EDGE} > order CartService/AddCartItem"
_CHECKOUT = f"{_EDGE} > order CartService/CheckoutCart"
_CREATE = f"{_EDGE} > order OrderService/CreateOrder"
_OFFERS = "order stock.get_offers > order StockService/BatchGetOffers > product StockService/BatchGetOffers"
_RESERVE = "order stock.reserve > order StockService/BatchReserveStock > product StockService/BatchReserveStock"
_CONFIRM = "order StockService/BatchConfirmReservations > product StockService/BatchConfirmReservations"
_MOVE = "order order.move batch > order order.move"


def paths(*leaves: str) -> list[str]:
    """Returns the paths of a tree's spans by those of its leaves."""
    spans: set[str] = set()
    for leaf in leaves:
        parts = leaf.split(" > ")
        spans |= {" > ".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return sorted(spans)


TREES = {
    "add": paths(f"{_ADD} > {_OFFERS} > product stock.offers", f"{_ADD} > order cart.change batch > order cart.change"),
    "buy": paths(
        f"{_CHECKOUT} > order cart.find batch > order cart.find",
        f"{_CHECKOUT} > {_RESERVE} > product stock.reserve",
        f"{_CHECKOUT} > order order.insert_from_cart batch > order order.insert_from_cart",
    ),
    "order": paths(
        f"{_CREATE} > {_RESERVE} > product stock.reserve",
        f"{_CREATE} > order order.insert batch > order order.insert",
    ),
    "process": paths(f"{_EDGE} > order OrderService/ProcessOrder > {_MOVE}"),
    "deliver": paths(f"{_EDGE} > order OrderService/DeliverOrder > {_MOVE}"),
    "receive": paths(f"{_EDGE} > order OrderService/ReceiveOrder > {_MOVE}"),
    "follow": paths(f"{_EDGE} > sse stream.open"),
    "replay": paths(f"{_EDGE} > sse stream.open"),
    "missing": paths(f"{_EDGE} > order OrderService/GetOrder > order order.find batch > order order.find"),
}
"""The spans of each request of `trade`."""

CONFIRMATION = paths(
    f"order outbox.send > {_CONFIRM} > product stock.confirm", "order outbox.send > order outbox.delete"
)
"""The spans of the message that confirms an order."""

OTHERS = ("search",)
"""Traces of several requests."""


def trace_of(name: str) -> bytes:
    """Returns the id of the trace in which something is done."""
    return name.encode().ljust(16, b"-")


def context(name: str, *, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace_of(name).hex()}-{CALLER}-0{int(sampled)}", "tracestate": "test=1"}


@dataclass
class Life:
    """What was sent and logged in the life of an order."""

    receiver: Receiver = field(default_factory=Receiver)
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether as many spans have come as there must be."""
        sent = [self.receiver.tree(each.trace_id) for each in self.confirmations]
        # The messages of both sampled orders, which may go together.
        return (
            sum(len(each.links) for each in self.confirmations) == 2
            and all(len(each) == len(CONFIRMATION) for each in sent)
            and all(len(self.tree(name)) >= len(spans) for name, spans in TREES.items())
        )

    @property
    def confirmations(self) -> list[Span]:
        """The spans of messages."""
        return [each for _, each in self.receiver.spans if each.name == "outbox.send"]

    def tree(self, name: str) -> list[str]:
        return self.receiver.tree(trace_of(name))

    def span(self, name: str, of: str) -> Span:
        """The span in a trace whose name ends so."""
        [found] = [
            each for _, each in self.receiver.spans if each.trace_id == trace_of(name) and each.name.endswith(of)
        ]
        return found

    def server_span(self, name: str) -> Span:
        """The span of the RPC of order in a trace."""
        edge = self.span(name, "ingress")
        [found] = [each for _, each in self.receiver.spans if each.parent_span_id == edge.span_id]
        return found

    def linked(self, *names: str) -> list[tuple[bytes, bytes]]:
        """What links to the RPCs of these traces are."""
        return [(trace_of(each), self.server_span(each).span_id) for each in names]

    def lines(self, log: str, name: str) -> list[dict[str, Any]]:
        """The lines of a trace in a log."""
        lines = [json.loads(line) for line in self.logs[log].splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("trace_id") == trace_of(name).hex()]


def links(span: Span) -> list[tuple[bytes, bytes]]:
    return [(each.trace_id, each.span_id) for each in span.links]


async def trade(http: httpx.AsyncClient) -> None:
    """Makes the calls of a cart that becomes an order and is followed to its end: all sampled, then all unsampled."""

    async def post(path: str, body: object, name: str = "", *, sampled: bool = True, secret: str = "") -> Any:
        headers = context(name, sampled=sampled) if name else {}
        answer = await http.post(path, json=body, headers=headers | ({"cart-secret": secret} if secret else {}))
        assert answer.status_code == 200, answer.text
        return answer.json()

    product = (await Rest(http).product())["id"]
    details = {key: value for key, value in Rest.order_body(product).items() if key != "items"}
    for sampled in (True, False):
        suffix = "" if sampled else "-unsampled"
        made = await post("/api/v1/carts", {})
        path, secret = f"/api/v1/carts/{made['cart']['id']}", made["secret"]
        item = {"productId": product, "quantity": 1}
        cart = await post(f"{path}:add", item, f"add{suffix}", sampled=sampled, secret=secret)
        body = {"etag": cart["etag"], **details}
        order = await post(f"{path}:checkout", body, f"buy{suffix}", sampled=sampled, secret=secret)
        stream = f"/api/orders/stream?order_id={order['id']}&token=secret-token"
        async with http.stream("GET", stream, headers=context(f"follow{suffix}", sampled=sampled)) as events:
            async for line in events.aiter_lines():
                if line == "id: 1":
                    for verb in ("process", "deliver", "receive"):
                        await post(f"/api/v1/orders/{order['id']}:{verb}", {}, f"{verb}{suffix}", sampled=sampled)
                if line == "event: completed":
                    break
        (await http.get(stream, headers=context(f"replay{suffix}", sampled=sampled))).raise_for_status()
        await post("/api/v1/orders", Rest.order_body(product), f"order{suffix}", sampled=sampled)
        for url in (
            "/api/v1/orders?customerEmail=ada@example.com",
            "/api/v1/orders?customerEmail=ada%40example.com&status=PLACED",
            "/api/v1/products?search=secret-word",
        ):
            (await http.get(url, headers=context(f"search{suffix}", sampled=sampled))).raise_for_status()
    missing = "/api/v1/orders/00000000-0000-4000-8000-000000000000"
    assert (await http.get(missing, headers=context("missing"))).status_code == 404


def check(life: Life) -> None:
    """Asserts that each request is one trace to both databases, and that links lead to what is done later."""
    for name, spans in TREES.items():
        assert life.tree(name) == spans, name
        assert life.span(name, "ingress").parent_span_id.hex() == CALLER
    for each in life.confirmations:
        assert life.receiver.tree(each.trace_id) == CONFIRMATION
    assert sorted(link for each in life.confirmations for link in links(each)) == sorted(life.linked("buy", "order"))
    # The openings of event streams.
    assert links(life.span("follow", "stream.open")) == life.linked("buy")
    assert links(life.span("replay", "stream.open")) == life.linked("buy", "process", "deliver", "receive")


def check_unsampled(life: Life) -> None:
    """Asserts that no span is of a call that its caller did not sample, or that nobody did."""
    ours = {trace_of(each) for each in (*TREES, *OTHERS)} | {each.trace_id for each in life.confirmations}
    assert {each.trace_id for _, each in life.receiver.spans} == ours
