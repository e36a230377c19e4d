"""A guest's cart over REST, which its id and its secret open."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edge import Failed, call, send


class Cart:
    """A new cart."""

    def __init__(self) -> None:
        created = call("POST", "/api/v1/carts", {})
        self.path: str = f"/api/v1/carts/{created['cart']['id']}"
        self.secret = {"Cart-Secret": str(created["secret"])}
        """The header that opens the cart."""

    def add(self, product_id: str, quantity: int) -> Any:
        """Adds pieces of a product. Returns the cart as it is then."""
        body = {"productId": product_id, "quantity": quantity}
        return call("POST", f"{self.path}:add", body, **{"Idempotency-Key": str(uuid.uuid4())}, **self.secret)

    def get(self) -> Any:
        """Returns the cart with its present prices."""
        return call("GET", self.path, **self.secret)

    def order_twice(self, seen: Any) -> Any:
        """Orders the version of the cart that was seen, by two requests at once. Returns the one order."""
        body = {
            "etag": seen["etag"],
            "expectedTotal": seen["total"],
            "customer": {"name": "Helm Test", "email": "helm-test@example.com"},
            "notes": "made by helm test",
        }
        with ThreadPoolExecutor(2) as clicks:
            both = [clicks.submit(call, "POST", f"{self.path}:checkout", body, **self.secret) for _ in range(2)]
        first, second = (each.result() for each in both)
        if first["id"] != second["id"]:
            raise Failed(f"a double click placed two orders: {first['number']} and {second['number']}")
        if left := self.get().get("items"):
            raise Failed(f"the cart was ordered and still has {left}")
        return first

    def delete(self) -> None:
        """Deletes the cart. A failure is not reported: an empty cart ends by itself."""
        send("DELETE", self.path, headers=self.secret)
