"""Who may call: with the demo issuer, through the edge and past it, and the shop's own secrets over an upgrade."""

import ast
import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Event
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from shop.order.v1 import order_pb2, order_pb2_grpc, status_feed_pb2, status_feed_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from tests.support.kube import CommandFailed, eventually
from tests.support.release import COMPONENTS, Release
from tests.support.rotation import refresh_files

UNKNOWN = "00000000-0000-4000-8000-000000000000"
CALL_TIMEOUT = 20.0
SHOW = """
from pathlib import Path
print({file.name: file.read_text() for file in Path("/internal-credentials").glob("[a-z]*")})
"""
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shop:
    """A release that asks for tokens, its edge, and the ports of its services."""

    release: Release
    edge: httpx.Client
    product: grpc.Channel
    order: grpc.Channel
    staff: str
    """Tokens of staff and of two customers."""
    ada: str
    bob: str

    @cached_property
    def product_id(self) -> str:
        """A product of the demo, which its loader has made with a token of its own."""
        return eventually(self._in_stock, 60, "the demo is loaded")

    def _in_stock(self) -> str:
        products = self._get("/api/v1/products").get("products", [])
        return next((str(each["id"]) for each in products if int(each["stock"]) > 5), "")

    def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.edge.get(path).json()
        return found

    def place(self, token: str = "") -> dict[str, Any]:
        body = {"items": [{"productId": self.product_id, "quantity": 1}], "customer": {"name": "Ada Lovelace"}}
        answer = self.edge.post("/api/v1/orders", json=body, headers=bearer(token))
        assert answer.status_code == 200, answer.text
        order: dict[str, Any] = answer.json()
        return order

    def secret(self, name: str) -> dict[str, str]:
        data = self.release.namespace.one("secret", self.release.component(name))["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def metadata(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),) if token else ()


def code(call: Callable[[], object]) -> str:
    """Returns the name of a call's status code."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.fixture(scope="module")
def tokens(token_shop: Release) -> dict[str, str]:
    """As the notes say how to get them."""
    found = {}
    for name, role in (("staff", "staff"), ("ada", "customer"), ("bob", "customer")):
        command = ("demo", "token", "--role", role, "--sub", name, "--ttl", "1h")
        issuer = f"deployment/{token_shop.component('issuer')}"
        found[name] = token_shop.namespace.execute(issuer, *command).strip()
    return found


@pytest.fixture
def shop(token_shop: Release, tokens: dict[str, str]) -> Iterator[Shop]:
    """The ports are forwarded anew for each test: `kubectl port-forward` may end when a stream is left."""
    with ExitStack() as stack:
        ports = {
            component: stack.enter_context(
                token_shop.namespace.forward(f"service/{token_shop.component(component)}", port)
            )
            for component, port in (("gateway", 8080), ("product", 50052), ("order", 50053))
        }
        edge = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports['gateway']}", timeout=CALL_TIMEOUT))
        product, order = (
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{ports[component]}"))
            for component in ("product", "order")
        )
        yield Shop(token_shop, edge, product, order, **tokens)


@pytest.mark.parametrize("who", ["nobody", "malformed", "ada", "staff"])
@pytest.mark.parametrize("way", ["edge", "service"])
def test_only_staff_changes_products(shop: Shop, who: str, way: str) -> None:
    token = {"nobody": "", "malformed": "none", "ada": shop.ada, "staff": shop.staff}[who]
    name = f"By {who} {uuid4().hex[:6]}"
    if way == "edge":
        price = {"currencyCode": "EUR", "units": "1"}
        answer = shop.edge.post("/api/v1/products", json={"name": name, "price": price}, headers=bearer(token))
        assert answer.status_code == {"ada": 403, "staff": 200}.get(who, 401), answer.text
        assert answer.headers.get("www-authenticate", "").startswith("Bearer") == (answer.status_code == 401)
    else:
        new = product_pb2.Product(name=name)
        new.price.currency_code, new.price.units = "EUR", 1
        create = product_pb2_grpc.ProductServiceStub(shop.product).CreateProduct
        request = product_pb2.CreateProductRequest(product=new)
        found = code(lambda: create(request, metadata=metadata(token), timeout=CALL_TIMEOUT))
        assert found == {"ada": "PERMISSION_DENIED", "staff": "OK"}.get(who, "UNAUTHENTICATED")


def test_customers_see_their_own_orders(shop: Shop) -> None:
    order = shop.place(shop.ada)
    path = f"/api/v1/orders/{order['id']}"
    by = {"ada": bearer(shop.ada), "bob": bearer(shop.bob), "staff": bearer(shop.staff), "nobody": {}}
    assert {who: shop.edge.get(path, headers=headers).status_code for who, headers in by.items()} == {
        "ada": 200,
        "bob": 404,
        "staff": 200,
        "nobody": 401,
    }
    assert shop.edge.post(f"{path}:process", json={}, headers=by["ada"]).status_code == 403
    assert shop.edge.post(f"{path}:process", json={}, headers=by["staff"]).status_code == 200
    for who, listed in (("ada", True), ("bob", False), ("staff", True)):
        orders = shop.edge.get("/api/v1/orders", headers=by[who]).json().get("orders", [])
        assert (order["id"] in [each["id"] for each in orders]) == listed, who


def test_port_forward_past_the_edge_opens_no_order(shop: Shop) -> None:
    order = shop.place(shop.ada)
    get = order_pb2_grpc.OrderServiceStub(shop.order).GetOrder
    request = order_pb2.GetOrderRequest(id=order["id"])
    by = {"nobody": "", "malformed": "none", "ada": shop.ada, "bob": shop.bob, "staff": shop.staff}
    found = {
        who: code(lambda: get(request, metadata=metadata(token), timeout=CALL_TIMEOUT))  # noqa: B023 - called at once
        for who, token in by.items()
    }
    assert found == {
        "nobody": "UNAUTHENTICATED",
        "malformed": "UNAUTHENTICATED",
        "ada": "OK",
        "bob": "NOT_FOUND",
        "staff": "OK",
    }


def test_internal_services_need_the_credential(shop: Shop) -> None:
    """Past the edge too. The edge removes the credential from requests, and routes none of these services."""
    credential = shop.secret("internal")["current"]
    stock = stock_pb2_grpc.StockServiceStub(shop.product).ListReservations
    feed = status_feed_pb2_grpc.StatusFeedServiceStub(shop.order).AuthorizeStream
    sent: dict[str, Metadata] = {
        "nothing": (),
        "token": metadata(shop.staff),
        "wrong": (("x-shop-credential", "0" * 64),),
        "credential": (("x-shop-credential", credential),),
    }
    for what, headers in sent.items():
        refused = {"nothing": "UNAUTHENTICATED", "token": "UNAUTHENTICATED", "wrong": "PERMISSION_DENIED"}.get(what)
        listed = code(
            lambda: stock(stock_pb2.ListReservationsRequest(page_size=1), metadata=headers, timeout=CALL_TIMEOUT)  # noqa: B023 - called at once
        )
        assert listed == (refused or "OK"), what
        request = status_feed_pb2.AuthorizeStreamRequest(order_id=UNKNOWN)
        authorized = code(lambda: feed(request, metadata=headers, timeout=CALL_TIMEOUT))  # noqa: B023 - likewise
        # With the credential, the order service looks at what the client of the stream sent: nothing.
        assert authorized == (refused or "UNAUTHENTICATED"), what
        assert (credential in str(headers)) == (what == "credential")
    for path in ("/shop.product.v1.StockService/ListReservations", "/shop.order.v1.StatusFeedService/AuthorizeStream"):
        smuggled = {"content-type": "application/grpc", "x-shop-credential": credential}
        answer = shop.edge.post(path, content=b"\0\0\0\0\0", headers=smuggled)
        assert answer.headers.get("grpc-status", "") == "12" or answer.status_code == 404, answer.headers
    # The credential opens nothing else.
    answer = shop.edge.get("/api/v1/orders", headers={"x-shop-credential": credential})
    assert answer.status_code == 401


def test_guest_follows_an_order_with_tickets(shop: Shop) -> None:
    order, other = shop.place(), shop.place()
    path, ticket = f"/api/v1/orders/{order['id']}", {"order-ticket": order["ticket"]}
    assert shop.edge.get(path, headers=ticket).json()["customer"]["name"] == "Ada Lovelace"
    assert shop.edge.get(path).status_code == 401
    assert shop.edge.get(path, headers={"order-ticket": other["ticket"]}).status_code == 404
    made = shop.edge.post(f"{path}:ticket", json={}, headers=ticket)
    assert made.status_code == 200, made.text
    stream_ticket = made.json()["ticket"]
    assert shop.edge.get(path, headers={"order-ticket": stream_ticket}).status_code == 401
    url = f"/api/orders/stream?order_id={order['id']}"
    assert shop.edge.get(url).status_code == 401
    with shop.edge.stream("GET", f"{url}&ticket={stream_ticket}") as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        assert '"status":"PLACED"' in first
        assert shop.edge.post(f"{path}:process", json={}, headers=bearer(shop.staff)).status_code == 200
        assert '"status":"PROCESSED"' in next(line for line in lines if line.startswith("data: "))


def test_no_log_has_a_token_or_a_ticket(shop: Shop) -> None:
    """After the tests before this one. The id of an order proves that the right logs are read."""
    order = shop.place()
    made = shop.edge.post(f"/api/v1/orders/{order['id']}:ticket", json={}, headers={"order-ticket": order["ticket"]})
    stream_ticket = made.json()["ticket"]
    with shop.edge.stream("GET", f"/api/orders/stream?order_id={order['id']}&ticket={stream_ticket}") as stream:
        assert stream.status_code == 200
        next(stream.iter_lines())

    def log_with(text: str) -> str:
        log = read_log(shop, "gateway")
        return log if text in log else ""

    # Envoy writes its access log every ten seconds.
    gateway = eventually(lambda: log_with(order["id"]), 60, "the access log has the order")
    secrets = [order["ticket"], stream_ticket, shop.ada, shop.staff]
    secrets += itertools.chain(*(shop.secret(name).values() for name in ("internal", "tickets")))
    logs = {component: read_log(shop, component) for component in ("product", "order", "issuer")}
    for component, log in {"gateway": gateway, **logs}.items():
        assert log, component
        assert not [secret for secret in secrets if secret in log], component


def read_log(shop: Shop, component: str) -> str:
    return shop.release.namespace.logs(shop.release.pod(component), "--all-containers")


def test_helm_test_passes_without_a_token(shop: Shop) -> None:
    assert shop.release.test().count("Succeeded") == 3


def test_demo_pods_only_have_the_signing_key(shop: Shop) -> None:
    """By exec, as somebody would try who may run commands in a pod."""
    place = shop.release.namespace
    for component, container in (("product", ""), ("order", ""), ("gateway", "sse")):
        with pytest.raises(CommandFailed):
            place.execute(shop.release.pod(component), "demo", "token", "--role", "staff", container=container)
    # Reconciliation calls StockService, with the credential of its pod.
    assert "orders" in place.execute(shop.release.pod("order"), "order", "reconcile")


def test_credential_is_rotated_under_load(shop: Shop) -> None:
    """By the commands of docs/operations.md, with an upgrade halfway: every order is a call from order to product."""
    release, before = shop.release, {name: shop.secret(name) for name in ("internal", "tickets", "issuer")}
    order = shop.place()
    old, new = before["internal"]["current"], uuid4().hex * 2
    steps = (
        (["--patch", json.dumps({"stringData": {"additional": new}})], {"current": old, "additional": new}),
        (
            ["--patch", json.dumps({"stringData": {"current": new, "additional": old}})],
            {"current": new, "additional": old},
        ),
        (["--type", "json", "--patch", json.dumps([{"op": "remove", "path": "/data/additional"}])], {"current": new}),
    )
    with orders_placed(shop) as failures:
        for patch, expected in steps:
            release.namespace.kubectl("patch", "secret", release.component("internal"), *patch)
            refresh_files(release, *COMPONENTS)
            began = time.monotonic()
            eventually(lambda: mounted(shop) == [expected] * 3, 180, "all pods have it")  # noqa: B023 - called at once
            print(f"in all pods after {time.monotonic() - began:.0f} s")
            release.upgrade("--reuse-values", "--wait", "--timeout", "200s", timeout=210)
            assert shop.secret("internal") == expected
    assert failures == []
    assert {each: shop.secret(each) for each in ("tickets", "issuer")} == {
        each: before[each] for each in ("tickets", "issuer")
    }
    deployment = release.namespace.one("deployment", release.component("product"))
    assert "INTERNAL_CREDENTIALS_OPTIONAL_UNTIL" not in str(deployment), "there was a credential before"
    # The old tickets and tokens are as good as before.
    path = f"/api/v1/orders/{order['id']}"
    assert shop.edge.get(path, headers={"order-ticket": order["ticket"]}).status_code == 200
    assert shop.edge.get(path, headers=bearer(shop.staff)).status_code == 200


def mounted(shop: Shop) -> list[dict[str, str]]:
    """Returns the credential as each pod has it that uses it."""
    found = []
    for component, container in (("product", ""), ("order", ""), ("gateway", "sse")):
        shown = shop.release.namespace.execute(shop.release.pod(component), "python", "-c", SHOW, container=container)
        found.append(ast.literal_eval(shown))
    return found


@contextmanager
def orders_placed(shop: Shop) -> Iterator[list[str]]:
    """Places orders one after another until the end of the block. Yields the list of failures."""
    price = {"currencyCode": "EUR", "units": "1"}
    product = {"name": f"Rotated {uuid4().hex[:6]}", "price": price, "stock": "1000000"}
    made = shop.edge.post("/api/v1/products", json=product, headers=bearer(shop.staff)).json()
    body = {"items": [{"productId": made["id"], "quantity": 1}]}
    stopped, failures, placed = Event(), list[str](), 0

    def place_orders() -> None:
        nonlocal placed
        while not stopped.wait(0.05):
            answer = shop.edge.post("/api/v1/orders", json=body)
            placed += 1
            if answer.status_code != 200:
                failures.append(f"order {placed}: {answer.status_code} {answer.text}")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(place_orders)
        try:
            yield failures
        finally:
            stopped.set()
            running.result()
    print(f"{placed} orders, {len(failures)} failed")
    assert placed > 200
