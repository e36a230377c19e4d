"""A REST client for tests: short ways to create what a test needs, and to check a refusal."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

Json = dict[str, Any]


@dataclass(frozen=True)
class Rest:
    """The shop as its REST clients see it."""

    http: httpx.AsyncClient
    products: list[str] = field(default_factory=list)
    """The ids of the products that it has created."""

    async def product(
        self, *, stock: int = 10, currency: str = "EUR", name: str = "", category: str = "Tests", **fields: object
    ) -> Json:
        """Creates a product at 12.50 and returns it."""
        body = {
            "name": name or f"Test product {uuid4().hex[:8]}",
            "category": category,
            "price": {"currencyCode": currency, "units": "12", "nanos": 500_000_000},
            "stock": str(stock),
            **fields,
        }
        product = self._json(await self.http.post("/api/v1/products", json=body))
        self.products.append(product["id"])
        return product

    async def delete_products(self) -> None:
        """Deletes the products that it has created: all tests share one catalogue."""
        for each in self.products:
            assert (await self.http.delete(f"/api/v1/products/{each}")).status_code in (200, 404)

    @staticmethod
    def order_body(product_id: str, quantity: int = 1) -> Json:
        return {
            "items": [{"productId": product_id, "quantity": quantity}],
            "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "phone": "+44 20 7946 0000"},
            "shippingAddress": "12 St James's Square, London",
            "paymentMethod": "CARD",
            "notes": "",
        }

    async def order(self, product_id: str, quantity: int = 1) -> Json:
        return self._json(await self.http.post("/api/v1/orders", json=self.order_body(product_id, quantity)))

    async def stock(self, product_id: str) -> int:
        return int(self._json(await self.http.get(f"/api/v1/products/{product_id}"))["stock"])

    @staticmethod
    def _json(answer: httpx.Response) -> Json:
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    @staticmethod
    def refused(answer: httpx.Response, http: int, code: int, *, field: str = "", reason: str = "") -> Json:
        """Checks a refusal and returns its google.rpc.Status, whose shape is the same for the edge and the services."""
        assert answer.status_code == http, f"{answer.status_code} {answer.text}"
        assert answer.headers["content-type"].startswith("application/json")
        status: Json = answer.json()
        assert set(status) == {"code", "message", "details"}, status
        assert status["code"] == code, status
        assert status["message"]
        if field:
            named = [
                violation["field"]
                for detail in status["details"]
                if detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
                for violation in detail["fieldViolations"]
            ]
            assert field in named, status
        if reason:
            reasons = [each["reason"] for each in status["details"] if each["@type"].endswith("google.rpc.ErrorInfo")]
            assert reasons == [reason], status
        return status
