"""A whole order of a product of its own, moved on by calls and watched as server-sent events to `completed`."""

import json
import uuid
from collections.abc import Iterator

from edge import Failed, ask, call, connection, create_product, eventually, main

PATH = ["PLACED", "PROCESSED", "DELIVERED", "RECEIVED"]


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
    if call("POST", "/api/v1/orders", body, **{"Idempotency-Key": key})["id"] != order["id"]:
        raise Failed("a retry with the same Idempotency-Key made another order")
    if order["total"] != {"currencyCode": "EUR", "units": "19", "nanos": 980000000}:
        raise Failed(f"two pieces at 9.99 make {order['total']}")
    if call("GET", f"/api/v1/products/{product_id}")["stock"] != "0":
        raise Failed("the order took no stock")
    print(f"order {order['number']}: placed once")

    seen: list[tuple[int, str]] = []
    for version, status in statuses(order["id"]):
        seen.append((version, status))
        print(f"  {version} {status}")
        if status in PATH[:-1]:
            move_on(order["id"], status)
    if seen != list(enumerate(PATH, start=1)):
        raise Failed(f"the stream told {seen}")
    print("stream: every status once, in order, to its end")


def move_on(order_id: str, status: str) -> None:
    """One step; the demo's simulator may have been quicker."""
    verb = {"PLACED": "process", "PROCESSED": "deliver", "DELIVERED": "receive"}[status]
    code, answer = ask("POST", f"/api/v1/orders/{order_id}:{verb}", {})
    if code != 200 and not (code == 400 and answer.get("code") == 9):
        raise Failed(f"{verb}: {code} {answer}")


def statuses(order_id: str) -> Iterator[tuple[int, str]]:
    """Version and status of each event until `completed`; reconnects with Last-Event-ID as an EventSource does."""
    last = 0
    for _ in range(10):
        http = connection(timeout=30)
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
            http.request("GET", f"/api/orders/stream?order_id={order_id}", headers=headers)
            answer = http.getresponse()
            if answer.status == 204:
                return
            if answer.status != 200:
                raise Failed(f"the stream is answered by {answer.status} {answer.read()!r}")
            event: dict[str, str] = {}
            for line in answer:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    event[name] = value
                    continue
                if event.get("event") == "completed":
                    return
                if "data" in event and "event" not in event:
                    last = int(event["id"])
                    yield last, json.loads(event["data"])["status"]
                event = {}
        finally:
            http.close()
    raise Failed("the stream breaks again and again")


main(check)
