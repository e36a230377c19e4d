"""No log, trace or statistic has what is private: personal data, tokens, tickets, the shop's own secrets."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import pytest
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.product.v1 import product_pb2, product_pb2_grpc, stock_pb2, stock_pb2_grpc

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


class Life:
    """A whole life of a guest's order and a customer's, with calls that fail. It keeps what must be seen nowhere."""

    def __init__(self, shop: RunningShop, provider: Provider, keys: Keys) -> None:
        self._shop = shop
        self._provider = provider
        self._keys = keys
        self.secrets = {keys.credential, keys.tickets}
        self.orders: list[str] = []
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
            for query in (f"customerEmail={quote(CUSTOMER['email'])}", f"customerEmail={CUSTOMER['email']}"):
                (await staff.get(f"/api/v1/orders?{query}")).raise_for_status()
        await self._bad_tokens(product)
        await self._past_the_edge(product)

    async def _order(self, http: httpx.AsyncClient, product: str) -> Json:
        body = {
            "items": [{"productId": product, "quantity": 1}],
            "customer": CUSTOMER,
            "shippingAddress": ADDRESS,
            "paymentMethod": "CARD",
            "notes": NOTES,
        }
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
            token = bearer(self._token())
            await order.GetOrder(order_pb2.GetOrderRequest(id=self.orders[1]), metadata=token)
            for refused in (
                reservations.ListReservations(stock_pb2.ListReservationsRequest(), metadata=wrong),
                product_pb2_grpc.ProductServiceStub(products).DeleteProduct(
                    product_pb2.DeleteProductRequest(id=product), metadata=bearer(self._token(ttl=-600))
                ),
                order.GetOrder(order_pb2.GetOrderRequest(id=self.orders[0]), metadata=token),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await refused


async def test_private_data_is_in_no_log_trace_or_statistic(tmp_path: Path) -> None:
    async with otlp_receiver() as spans:
        with oidc_provider() as provider:
            variables = provider.variables(LOG_LEVEL="DEBUG", LOG_FORMAT="json", **spans.variables())
            with run_shop(tmp_path, variables) as shop:
                folder = shop.shop.logs.parent
                keys = Keys(*((folder / name / CURRENT).read_text() for name in ("credentials", "ticket-keys")))
                life = Life(shop, provider, keys)
                await life.run()
                await eventually(lambda: {"shop-edge", "order", "product"} <= {owner for owner, _ in spans.spans})
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{shop.shop.admin_port}") as admin:
                    kept = {f"Envoy's {path}": (await admin.get(path)).text for path in ("stats", "stats/prometheus")}
        # The processes have ended, and have written and sent everything.
        kept |= {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
        kept["spans"] = spans.text()

    assert {"product.log", "order.log", "sse.log", "envoy.log"} <= set(kept)
    for name in ("order.log", "envoy.log", "spans"):
        assert any(order in kept[name] for order in life.orders), f"no order is seen in {name}: is nothing written?"
    assert re.search(r'"level": ?"DEBUG"', kept["order.log"])
    found = [
        f"{name} has {private!r}: {re.findall(rf'.{{0,80}}{re.escape(private)}.{{0,20}}', text)[:1]}"
        for name, text in kept.items()
        for private in (*PERSONAL, *life.secrets)
        if private in text
    ]
    assert found == [], json.dumps(found, indent=1)
