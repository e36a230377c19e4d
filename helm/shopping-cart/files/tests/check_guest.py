"""Checks what a guest may do, in a shop that asks for tokens. Without guests: that ordering needs a token.

It places an order only with the demo issuer (PLACE_ORDER): a guest cannot cancel one, so it stays.
"""

import os
from typing import Any

from access import GUESTS, check_refused
from cart import Cart
from edge import Failed, call, eventually, main, send
from watch import PATH, Watch

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def check() -> None:
    eventually(lambda: call("GET", "/api/v1/products?pageSize=1") and None)
    check_refused("GET", f"/api/v1/orders/{UNKNOWN}", "TOKEN_REQUIRED")
    if not GUESTS:
        check_refused("POST", "/api/v1/orders", "TOKEN_REQUIRED", order_of(UNKNOWN))
        check_refused("POST", "/api/v1/carts", "TOKEN_REQUIRED", {})
        print("guests: refused")
        return
    check_refused("GET", f"/api/v1/orders/{UNKNOWN}", "TICKET_INVALID", headers={"order-ticket": "none"})
    # Nothing is ordered: the product does not exist.
    status, response = send("POST", "/api/v1/orders", order_of(UNKNOWN))
    if status in (200, 401, 403) or status >= 500:
        raise Failed(f"an order of an unknown product: {status} {response}")
    check_refused("GET", f"/api/v1/carts/{UNKNOWN}", "TOKEN_REQUIRED")
    check_refused("GET", "/api/v1/carts:mine", "TOKEN_REQUIRED")
    status, response = send("GET", f"/api/v1/carts/{UNKNOWN}", headers={"Cart-Secret": "none"})
    if (status, response.get("code")) != (404, 5):
        raise Failed(f"a cart that does not exist: {status} {response}")
    print("guests: admitted")
    if os.environ.get("PLACE_ORDER") == "true":
        place_and_follow()


def order_of(product_id: str) -> dict[str, Any]:
    return {"items": [{"productId": product_id, "quantity": 1}], "notes": "made by helm test"}


def place_and_follow() -> None:
    products = call("GET", "/api/v1/products?pageSize=100").get("products", [])
    in_stock = [product["id"] for product in products if product.get("stock", "0") != "0"]
    if not in_stock:
        print("no product is in stock, so no order was placed")
        return
    cart = Cart()
    try:
        check_refused("GET", cart.path, "TOKEN_REQUIRED")
        cart.add(in_stock[0], 1)
        order = cart.order_twice(cart.get())
    finally:
        cart.delete()
    path, ticket = f"/api/v1/orders/{order['id']}", order["ticket"]
    check_refused("GET", path, "TOKEN_REQUIRED")
    if call("GET", path, **{"order-ticket": ticket})["id"] != order["id"]:
        raise Failed("the ticket opens another order")
    if send("GET", f"/api/v1/orders/{UNKNOWN}", headers={"order-ticket": ticket})[0] != 404:
        raise Failed("the ticket says more of another order than that there is none")
    stream_ticket = call("POST", path + ":ticket", {}, **{"order-ticket": ticket})["ticket"]
    check_refused("GET", path, "TICKET_INVALID", headers={"order-ticket": stream_ticket})
    version, status = next(iter(Watch(order["id"], ticket=stream_ticket)))
    if not version or status not in PATH:
        raise Failed(f"the stream sent {version} {status}")
    print(f"order {order['number']}: placed by a guest out of a cart, read and followed with tickets")


main(check)
