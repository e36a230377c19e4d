"""A whole order of a product of its own, moved on by calls and watched as server-sent events to `completed`.

What it made is over when it ends: the product is deleted, and the order RECEIVED, or cancelled if something went wrong.
"""

import uuid
from typing import Any

from edge import Failed, ask, call, create_product, eventually, main
from watch import PATH, Watch, move_on


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
        check_whole(product_id, order, body, key)
    except BaseException:
        ask("POST", f"/api/v1/orders/{order['id']}:cancel", {})
        raise


def check_whole(product_id: str, order: dict[str, Any], body: object, key: str) -> None:
    if call("POST", "/api/v1/orders", body, **{"Idempotency-Key": key})["id"] != order["id"]:
        raise Failed("a retry with the same Idempotency-Key made another order")
    if order["total"] != {"currencyCode": "EUR", "units": "19", "nanos": 980000000}:
        raise Failed(f"two pieces at 9.99 make {order['total']}")
    if call("GET", f"/api/v1/products/{product_id}")["stock"] != "0":
        raise Failed("the order took no stock")
    print(f"order {order['number']}: placed once")

    seen: list[tuple[int, str]] = []
    for version, status in Watch(order["id"]):
        seen.append((version, status))
        print(f"  {version} {status}")
        if status != PATH[-1]:
            move_on(order["id"], status)
    if seen != list(enumerate(PATH, start=1)):
        raise Failed(f"the stream told {seen}")
    print("stream: every status once, in order, to its end")


main(check)
