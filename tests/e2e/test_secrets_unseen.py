"""No log, trace or metric has what is private: personal data, tokens, tickets, secrets of carts and of the shop."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import pytest
from shop.cart.v1 import cart_pb2, cart_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

from runtime.access.caller_hash import caller_hash
from runtime.access.secret import CURRENT
from tests.support.auth_callers import Keys, bearer, forged
from tests.support.eventually import eventually
from tests.support.oidc import Provider, new_key, oidc_provider
from tests.support.otlp import otlp_receiver
from tests.support.rest import Json, Rest
from tests.support.shop import RunningShop, run_shop

CUSTOMER = {"name": "Zerlina Quuxworth", "email": "zerlina.quux@example.com", "phone": "+44 20 7946 0999"}
ADDRESS = "221 Quaggy Street, Quibbleton"
NOTES = "ring the quadruple bell"
DETAILS = {"customer": CUSTOMER, "shippingAddress": ADDRESS, "paymentMethod": "CARD", "notes": NOTES}
SUBJECT = "auth0|zerlina-7731"
PERSONAL = (
    *CUSTOMER.values(),
    "Zerlina",
    "zerlina.quux%40",
    "7946 0999",
    "7946%200999",
    "Quaggy",
    "quadruple",
    SUBJECT,
    quote(SUBJECT),
)


SERVICES = ("product", "order", "sse")


async def page(port: int) -> str:
    """What a port for metrics shows, Envoy's or a service's."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for path in ("/metrics", "/stats/prometheus"):
            if (answer := await http.get(path)).is_success:
                return answer.text
    raise AssertionError(f"port {port} shows no metrics")


class Life:
    """A whole life of orders and carts, a guest's and a customer's, with calls that fail.

    It keeps what must be seen nowhere.
    """

    def __init__(self, shop: RunningShop, provider: Provider, keys: Keys) -> None:
        self._shop = shop
        self._provider = provider
        self._keys = keys
        self.secrets = {keys.credential, keys.tickets}
        self.orders: list[str] = []
        self.carts: list[str] = []
        self._ticket = ""

    def _token(self, subject: str = SUBJECT, **claims: object) -> str:
        return self._keep(self._provider.token(subject, **claims))  # type: ignore[arg-type]  # any claim

    def _keep(self, secret: str) -> str:
        """Notes a secret, and those of its parts that say something by themselves."""
        self.secrets |= {secret, *(part for part in secret.split(".")[1:] if len(part) > 20)}
        return secret

    @asynccontextmanager
    async def _client(self, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
        headers = dict(bearer(token)) if token else {}
        async with httpx.AsyncClient(base_url=self._shop.url, timeout=20, headers=headers) as http:
            yield http

    async def run(self) -> None:
        async with self._client(self._token("grace", staff=True)) as staff:
            product = (await Rest(staff).product())["id"]
            await self._guest(product, staff)
            await self._customer(product)
            await self._carts(product)
            for query in (f"customerEmail={quote(CUSTOMER['email'])}", f"customerEmail={CUSTOMER['email']}"):
                (await staff.get(f"/api/v1/orders?{query}")).raise_for_status()
        await self._bad_tokens(product)
        await self._past_the_edge(product)

    async def _order(self, http: httpx.AsyncClient, product: str) -> Json:
        body = {"items": [{"productId": product, "quantity": 1}], **DETAILS}
        answer = await http.post("/api/v1/orders", json=body)
        assert answer.status_code == 200, answer.text
        order: Json = answer.json()
        self.orders.append(order["id"])
        return order

    async def _guest(self, product: str, staff: httpx.AsyncClient) -> None:
        async with self._client() as http:
            order = await self._order(http, product)
            self._ticket = order["ticket"]
            path, ticket = f"/api/v1/orders/{order['id']}", {"order-ticket": self._keep(order["ticket"])}
            (await http.get(path, headers=ticket)).raise_for_status()
            made = (await http.post(f"{path}:ticket", json={}, headers=ticket)).raise_for_status().json()
            in_url = self._keep(made["ticket"])
            stream = f"/api/orders/stream?order_id={order['id']}&ticket="
            async with http.stream("GET", stream + in_url) as events:
                async for line in events.aiter_lines():
                    if line == "id: 1":
                        for verb in ("process", "deliver", "receive"):
                            (await staff.post(f"{path}:{verb}", json={})).raise_for_status()
                    if line == "event: completed":
                        break
            expired = self._keep(self._keys.ticket("stream", order["id"], -1))
            for wrong in (expired, self._keep(forged(in_url)), ticket["order-ticket"], "malformed-ticket-0123456789"):
                for last_id in ({}, {"Last-Event-ID": "1"}):
                    refused = await http.get(stream + self._keep(wrong), headers=last_id)
                    assert refused.status_code == 401 or "event: error" in refused.text
                assert (await http.get(path, headers={"order-ticket": wrong})).status_code in (200, 401)
            assert (await http.get(f"{stream}{in_url}&ticket={expired}")).status_code == 400
            assert (await http.get(f"{path}/status/stream/?ticket={in_url}")).status_code == 200

    async def _customer(self, product: str) -> None:
        async with self._client(self._token()) as http:
            order = await self._order(http, product)
            path = f"/api/v1/orders/{order['id']}"
            for each in (path, "/api/v1/orders"):
                (await http.get(each)).raise_for_status()
            (await http.post(f"{path}:cancel", json={})).raise_for_status()
            (await http.get(f"{path}/status/stream")).raise_for_status()
            assert (await http.post(f"{path}:process", json={})).status_code == 403
            assert (await http.get(f"/api/v1/orders/{self.orders[0]}")).status_code == 404

    async def _cart(self, http: httpx.AsyncClient, product: str) -> tuple[str, dict[str, str]]:
        """Makes a guest's cart with something in it. Returns its path and the header with its secret."""
        made = (await http.post("/api/v1/carts", json={})).raise_for_status().json()
        self.carts.append(made["cart"]["id"])
        path, secret = f"/api/v1/carts/{made['cart']['id']}", {"cart-secret": self._keep(made["secret"])}
        body = {"productId": product, "quantity": 2}
        (await http.post(f"{path}:add", json=body, headers=secret)).raise_for_status()
        return path, secret

    async def _check_out(self, http: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
        etag = (await http.get(path, headers=headers)).raise_for_status().json()["etag"]
        body = {"etag": etag, **DETAILS}
        placed, again = [await http.post(f"{path}:checkout", json=body, headers=headers) for _ in range(2)]
        order = placed.raise_for_status().json()
        assert again.raise_for_status().json()["id"] == order["id"]
        if ticket := order.get("ticket"):
            self._keep(ticket)
        self.orders.append(order["id"])
        another = {"etag": etag, **DETAILS, "notes": f"{NOTES} twice"}
        assert (await http.post(f"{path}:checkout", json=another, headers=headers)).status_code == 409
        changed = {"etag": self.carts[0], **DETAILS}
        assert (await http.post(f"{path}:checkout", json=changed, headers=headers)).status_code == 409

    async def _carts(self, product: str) -> None:
        async with self._client() as http, self._client(self._token()) as customer:
            path, secret = await self._cart(http, product)
            await self._check_out(http, path, secret)
            right = secret["cart-secret"]
            for wrong in (self._keep(right[::-1]), self._keep(f"{right}x"), self._keep("wrong-secret-0123456789" * 5)):
                assert (await http.get(path, headers={"cart-secret": wrong})).status_code == 404
                body = {"cartId": self.carts[0], "secret": wrong}
                assert (await customer.post("/api/v1/carts:merge", json=body)).status_code in (400, 404)
            for name, value in (("cart-secret", right), ("secret", right), ("cartSecret", right)):
                assert (await http.get(path, params={name: value})).status_code in (400, 401)
            twice = [("cart-secret", right), ("cart-secret", right)]
            assert (await http.get(path, headers=twice)).status_code in (400, 404)
            # grpc logs a header that is not UTF-8, by itself.
            answer = await http.get(path, headers=[(b"cart-secret", right.encode() + b"\xa0")], timeout=5)
            assert answer.status_code in (401, 404), answer.text

            path, secret = await self._cart(http, product)
            body = {"cartId": self.carts[-1], "secret": secret["cart-secret"]}
            _, merged = [await customer.post("/api/v1/carts:merge", json=body) for _ in range(2)]
            mine = merged.raise_for_status().json()
            assert (await http.get(path, headers=secret)).status_code == 404
            for call in ((path, {}), (f"/api/v1/carts/{mine['id']}", secret)):
                assert (await http.get(call[0], headers=call[1])).status_code in (401, 404)
            await self._check_out(customer, f"/api/v1/carts/{mine['id']}", {})
            (await customer.post(f"/api/v1/carts/{mine['id']}:clear", json={})).raise_for_status()
            (await customer.delete(f"/api/v1/carts/{mine['id']}")).raise_for_status()

    async def _bad_tokens(self, product: str) -> None:
        async with self._client() as http:
            for token in (
                self._token(ttl=-600),
                self._token(aud="another"),
                self._token(key=new_key()),
                self._keep(self._provider.foreign_token(SUBJECT)),
                self._keep(self._provider.unsigned_token(SUBJECT)),
                self._keep("malformed-token-0123456789.abcdefghijklmnopqrstuvwxyz"),
            ):
                sent = dict(bearer(token))
                for path in (f"/api/v1/products/{product}", f"/api/v1/orders/{self.orders[0]}/status/stream"):
                    assert (await http.get(path, headers=sent)).status_code == 401, path
                assert (await http.get("/api/v1/orders", params={"access_token": token})).status_code in (400, 401)
            # grpc logs a header that is not UTF-8, by itself.
            order = f"/api/v1/orders/{self.orders[0]}"
            for name, value in (("authorization", f"bearer {self._token()}"), ("order-ticket", self._ticket)):
                for path in (order, f"{order}/status/stream"):
                    answer = await http.get(path, headers=[(name.encode(), value.encode() + b"\xa0")], timeout=5)
                    assert answer.status_code == 401, answer.text
            answer = await http.get(f"/api/v1/products/{product}", headers=[(b"x-any", b"\xff")], timeout=5)
            assert answer.status_code == 200

    async def _past_the_edge(self, product: str) -> None:
        wrong = (("x-shop-credential", self._keep("wrong-credential-" + "0123456789" * 5)),)
        right = (("x-shop-credential", self._keys.credential),)
        async with (
            grpc.aio.insecure_channel(self._shop.product_target) as products,
            grpc.aio.insecure_channel(self._shop.order_target) as orders,
        ):
            reservations = stock_pb2_grpc.StockServiceStub(products)
            await reservations.ListReservations(stock_pb2.ListReservationsRequest(), metadata=right)
            order = order_pb2_grpc.OrderServiceStub(orders)
            carts = cart_pb2_grpc.CartServiceStub(orders)
            cart = await carts.CreateCart(cart_pb2.CreateCartRequest())
            secret = (("cart-secret", self._keep(cart.secret)),)
            await carts.GetCart(cart_pb2.GetCartRequest(id=cart.cart.id), metadata=secret)
            token = bearer(self._token())
            await order.GetOrder(order_pb2.GetOrderRequest(id=self.orders[1]), metadata=token)
            for refused in (
                reservations.ListReservations(stock_pb2.ListReservationsRequest(), metadata=wrong),
                product_pb2_grpc.ProductServiceStub(products).DeleteProduct(
                    product_pb2.DeleteProductRequest(id=product), metadata=bearer(self._token(ttl=-600))
                ),
                order.GetOrder(order_pb2.GetOrderRequest(id=self.orders[0]), metadata=token),
                carts.GetCart(cart_pb2.GetCartRequest(id=self.carts[0]), metadata=secret),
                carts.MergeCart(cart_pb2.MergeCartRequest(cart_id=self.carts[0], secret=cart.secret), metadata=token),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await refused


async def test_private_data_is_in_no_log_trace_or_metric(tmp_path: Path) -> None:
    async with otlp_receiver() as sent:
        with oidc_provider() as provider:
            variables = provider.variables(LOG_LEVEL="DEBUG", LOG_FORMAT="json", TELEMETRY="1", **sent.variables())
            with run_shop(tmp_path, variables) as shop:
                folder = shop.shop.logs.parent
                keys = Keys(*((folder / name / CURRENT).read_text() for name in ("credentials", "ticket-keys")))
                life = Life(shop, provider, keys)
                await life.run()
                await eventually(lambda: {owner for owner, _ in sent.spans} == {"shop-edge", *SERVICES})
                kept = {f"metrics of {name}": await page(port) for name, port in shop.shop.metrics_ports.items()}
                await eventually(lambda: sent.value("order", "shop.orders.transitions") >= len(life.orders))
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{shop.shop.admin_port}") as admin:
                    kept["Envoy's statistics"] = (await admin.get("stats")).text
        # The processes have ended, and have written and sent everything.
        kept |= {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
        kept["spans"], kept["sent metrics"] = sent.text(), sent.metrics_text()

    assert {"product.log", "order.log", "sse.log", "envoy.log"} <= set(kept)
    measured = {"sent metrics", "Envoy's statistics", *(f"metrics of {name}" for name in (*SERVICES, "envoy"))}
    for name in measured:
        assert kept[name]
        # Labels are bounded: none is an id.
        assert not [each for each in (*life.orders, *life.carts) if each in kept[name]], name
    for name in ("order.log", "envoy.log", "spans"):
        assert any(order in kept[name] for order in life.orders), f"no order is seen in {name}: is nothing written?"
        assert name == "spans" or any(cart in kept[name] for cart in life.carts), f"no cart is seen in {name}"
    assert re.search(r'"level": ?"DEBUG"', kept["order.log"])
    assert caller_hash(SUBJECT, keys.credential) in kept["order.log"], "a customer's calls can be found"
    found = [
        f"{name} has {private!r}: {re.findall(rf'.{{0,80}}{re.escape(private)}.{{0,20}}', text)[:1]}"
        for name, text in kept.items()
        for private in (*PERSONAL, *life.secrets)
        if private in text
    ]
    assert found == [], json.dumps(found, indent=1)
