"""Buys a new product through a cart, moves the order through its statuses, and follows it until `completed`.

It cleans up: the product and the cart are deleted, and the order ends as RECEIVED, or as cancelled if the check fails.
"""

from typing import Any

from cart import Cart
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
    cart = Cart()
    try:
        order = cart.order_twice(fill(cart, product_id))
        try:
            check_order(product_id, order)
        except BaseException:
            send("POST", f"/api/v1/orders/{order['id']}:cancel", {})
            raise
    finally:
        cart.delete()


def fill(cart: Cart, product_id: str) -> Any:
    """Puts two pieces into a cart, one by one. Returns the cart."""
    cart.add(product_id, 1)
    cart.add(product_id, 1)
    status, response = send("GET", cart.path, headers={"Cart-Secret": "none"})
    if (status, response.get("code")) != (404, 5):
        raise Failed(f"a wrong secret of a cart: {status} {response}")
    seen = cart.get()
    if [(each["productId"], each["quantity"]) for each in seen["items"]] != [(product_id, 2)]:
        raise Failed(f"a piece and another one are {seen['items']}")
    if seen["items"][0]["problems"]:
        raise Failed(f"the cart has {seen['items'][0]['problems']}")
    return seen


def check_order(product_id: str, order: dict[str, Any]) -> None:
    if order["total"] != {"currencyCode": "EUR", "units": "19", "nanos": 980000000}:
        raise Failed(f"two pieces at 9.99 cost {order['total']}")
    if call("GET", f"/api/v1/products/{product_id}")["stock"] != "0":
        raise Failed("the order reserved no stock")
    print(f"order {order['number']}: placed once, out of a cart")

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
