"""Checks REST: the life cycle of a product, and the shape of errors.

Where the shop asks for tokens, it has none, and checks that it can read the catalogue and write nothing.
"""

from access import TOKENS, check_refused
from edge import Failed, call, create_product, eventually, main, send


def check() -> None:
    eventually(lambda: call("GET", "/api/v1/products?pageSize=1") and None)
    if TOKENS:
        check_closed()
    else:
        check_products()
    for wrong, code in (("/api/v1/products/no-uuid", 3), ("/api/v1/nothing", 5)):
        status, response = send("GET", wrong)
        if status < 400 or response.get("code") != code or "message" not in response:
            raise Failed(f"GET {wrong}: {status} {response}")
    print("errors: all in one shape")


def check_closed() -> None:
    check_refused("POST", "/api/v1/products", "TOKEN_REQUIRED", {"name": "helm test"})
    check_refused("GET", "/api/v1/orders", "TOKEN_REQUIRED")
    check_refused("GET", "/api/v1/products", "TOKEN_INVALID", headers={"Authorization": "Bearer none"})
    print("without a token: the catalogue can be read; writes and lists of orders are refused")


def check_products() -> None:
    product = create_product(stock=3)
    path = f"/api/v1/products/{product['id']}"
    try:
        if call("GET", path)["stock"] != "3":
            raise Failed("the product has the wrong stock")
        changed = call("PATCH", path + "?updateMask=variant", {"variant": "blue", "etag": product["etag"]})
        if changed["variant"] != "blue":
            raise Failed("the update was lost")
        status, response = send("PATCH", path + "?updateMask=variant", {"variant": "red", "etag": product["etag"]})
        if (status, response["code"]) != (409, 10):
            raise Failed(f"a stale etag returned {status} {response}")
        found = call("GET", "/api/v1/products?search=" + product["name"].replace(" ", "%20"))
        if [each["id"] for each in found["products"]] != [product["id"]]:
            raise Failed("the search does not find the product")
        print("products: created, read, updated, found")
    finally:
        call("DELETE", path)


main(check)
