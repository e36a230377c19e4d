"""Places an order for a new product, moves it through its statuses, and follows it until `completed`.

It cleans up: the product is deleted, and the order ends as RECEIVED, or as cancelled if the check fails.
"""

import uuid
from typing import Any

from edge import Failed, call, create_product, eventually, main, send
from watch import PATH, Watch, advance


def check() -> None:
    eventually(lambda: call("GET", "/api/v1/orders?pageSize=1") and None)
    product = create_product(stock=2)
    try:
        follow(product["id"])
    finally:
        call("DELETE", f"/api/v1/products/{product['id']}")


def follow(product_id: str) -> None:
    body = {
        "items": [{"productId": product_id, "quantity": 2}],
        "customer": {"name": "Helm Test", "email": "helm-test@example.com"},
        "notes": "made by helm test",
    }
    key = str(uuid.uuid4())
    order = call("POST", "/api/v1/orders", body, **{"Idempotency-Key": key})
    try:
        check_order(product_id, order, body, key)
    except BaseException:
        send("POST", f"/api/v1/orders/{order['id']}:cancel", {})
        raise


def check_order(product_id: str, order: dict[str, Any], body: object, key: str) -> None:
    if call("POST", "/api/v1/orders", body, **{"Idempotency-Key": key})["id"] != order["id"]:
        raise Failed("a retry with the same Idempotency-Key placed another order")
    if order["total"] != {"currencyCode": "EUR", "units": "19", "nanos": 980000000}:
        raise Failed(f"two pieces at 9.99 cost {order['total']}")
    if call("GET", f"/api/v1/products/{product_id}")["stock"] != "0":
        raise Failed("the order reserved no stock")
    print(f"order {order['number']}: placed once")

    seen: list[tuple[int, str]] = []
    for version, status in Watch(order["id"]):
        seen.append((version, status))
        print(f"  {version} {status}")
        if status != PATH[-1]:
            advance(order["id"], status)
    if seen != list(enumerate(PATH, start=1)):
        raise Failed(f"the stream sent {seen}")
    print("stream: each status once, in order, until completed")


main(check)
