"""Checks REST: the life cycle of a product, and the shape of errors."""

from edge import Failed, call, create_product, eventually, main, send


def check() -> None:
    eventually(lambda: call("GET", "/api/v1/products?pageSize=1") and None)
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
    for wrong, code in (("/api/v1/products/no-uuid", 3), ("/api/v1/nothing", 5)):
        status, response = send("GET", wrong)
        if status < 400 or response.get("code") != code or "message" not in response:
            raise Failed(f"GET {wrong}: {status} {response}")
    print("errors: all in one shape")


main(check)
