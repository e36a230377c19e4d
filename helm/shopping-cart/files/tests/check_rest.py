"""REST: a product's whole life, and errors in the one shape."""

from edge import Failed, ask, call, create_product, eventually, main


def check() -> None:
    eventually(lambda: call("GET", "/api/v1/products?pageSize=1") and None)
    product = create_product(stock=3)
    path = f"/api/v1/products/{product['id']}"
    try:
        if call("GET", path)["stock"] != "3":
            raise Failed("the stock is not what was written")
        changed = call("PATCH", path + "?updateMask=variant", {"variant": "blue", "etag": product["etag"]})
        if changed["variant"] != "blue":
            raise Failed("the change did not last")
        status, answer = ask("PATCH", path + "?updateMask=variant", {"variant": "red", "etag": product["etag"]})
        if (status, answer["code"]) != (409, 10):
            raise Failed(f"a stale etag was answered by {status} {answer}")
        found = call("GET", "/api/v1/products?search=" + product["name"].replace(" ", "%20"))
        if [each["id"] for each in found["products"]] != [product["id"]]:
            raise Failed("the search does not find the product")
        print("products: created, read, changed, found")
    finally:
        call("DELETE", path)
    for wrong, code in (("/api/v1/products/no-uuid", 3), ("/api/v1/nothing", 5)):
        status, answer = ask("GET", wrong)
        if status < 400 or answer.get("code") != code or "message" not in answer:
            raise Failed(f"GET {wrong}: {status} {answer}")
    print("errors: one shape")


main(check)
