"""REST through the real Envoy: what a shop's front end does, and what it is told when it errs."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.rest import Rest

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_product_life_cycle(rest: Rest) -> None:
    product = await rest.product(stock=3, category="Tests")
    path = f"/api/v1/products/{product['id']}"
    assert product["stock"] == "3"
    assert product["price"] == {"currencyCode": "EUR", "units": "12", "nanos": 500000000}

    changed = (await rest.http.patch(path, json={"name": "Renamed", "etag": product["etag"]})).json()
    assert (changed["name"], changed["stock"]) == ("Renamed", "3")
    assert changed["etag"] != product["etag"]

    more = await rest.http.post(f"{path}:adjustStock", json={"delta": "4"})
    assert more.json()["stock"] == "7"
    assert more.json()["etag"] == changed["etag"], "the etag does not change with the stock"

    gone = await rest.http.delete(path)
    assert gone.json()["deleteTime"]
    assert (await rest.http.get(path)).json()["deleteTime"]
    back = await rest.http.post(f"{path}:undelete", json={})
    assert not back.json().get("deleteTime")


async def test_lists_are_paged_and_searched(rest: Rest) -> None:
    word = uuid4().hex[:12]
    for number in range(5):
        await rest.product(name=f"Lamp {number} {word}")
    seen: list[str] = []
    token = ""
    while True:
        query = {"search": f"LAMP {word}", "pageSize": "2", "orderBy": "name", "pageToken": token}
        page = (await rest.http.get("/api/v1/products", params=query)).json()
        seen += [each["name"] for each in page["products"]]
        token = page["nextPageToken"]
        if not token:
            break
    assert seen == [f"Lamp {number} {word}" for number in range(5)]


async def test_order_keeps_the_catalogue_price(rest: Rest) -> None:
    product = await rest.product(stock=5)
    body = rest.order_body(product["id"], 2)
    body["items"][0]["unitPrice"] = {"currencyCode": "EUR", "units": "1"}
    placed = await rest.http.post("/api/v1/orders", json=body)
    order = placed.json()
    assert placed.status_code == 200, placed.text
    assert placed.headers["etag"]
    assert order["status"] == "PLACED"
    assert order["number"].startswith("INV-")
    assert order["total"] == {"currencyCode": "EUR", "units": "25", "nanos": 0}
    assert order["items"][0]["name"] == product["name"]
    price = {"price": {"currencyCode": "EUR", "units": "99"}}
    await rest.http.patch(f"/api/v1/products/{product['id']}", json=price)
    assert (await rest.http.get(f"/api/v1/orders/{order['id']}")).json()["total"] == order["total"]
    assert (await rest.stock(product["id"])) == 3


async def test_order_moves_forward_only(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    for verb, status in (("process", "PROCESSED"), ("deliver", "DELIVERED"), ("receive", "RECEIVED")):
        answer = await rest.http.post(f"/api/v1/orders/{order['id']}:{verb}", json={})
        assert answer.json()["status"] == status
    again = await rest.http.post(f"/api/v1/orders/{order['id']}:receive", json={})
    assert again.json()["status"] == "RECEIVED", "a repeated transition answers the order as it is"
    rest.refused(
        await rest.http.post(f"/api/v1/orders/{order['id']}:cancel", json={}), 400, 9, reason="ILLEGAL_TRANSITION"
    )


async def test_cancelled_order_returns_its_stock(rest: Rest) -> None:
    product = await rest.product(stock=5)
    order = await rest.order(product["id"], 4)
    assert await rest.stock(product["id"]) == 1
    for _ in range(2):
        cancelled = await rest.http.post(f"/api/v1/orders/{order['id']}:cancel", json={})
        assert cancelled.json()["status"] == "CANCELLED"
    async with asyncio.timeout(10):
        while await rest.stock(product["id"]) != 5:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.5)
    assert await rest.stock(product["id"]) == 5, "given back once"


@pytest.mark.parametrize("way", ["header", "field"])
async def test_retry_with_the_same_key_returns_the_order(rest: Rest, way: str) -> None:
    product = await rest.product(stock=5)
    body = rest.order_body(product["id"])
    key = str(uuid4())
    headers = {"Idempotency-Key": key} if way == "header" else {}
    if way == "field":
        body["requestId"] = key
    answers = await asyncio.gather(*(rest.http.post("/api/v1/orders", json=body, headers=headers) for _ in range(6)))
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert await rest.stock(product["id"]) == 4
    body["notes"] = "something else"
    rest.refused(
        await rest.http.post("/api/v1/orders", json=body, headers=headers), 409, 6, reason="IDEMPOTENCY_KEY_REUSED"
    )


@pytest.mark.parametrize("keys", [[""], [str(uuid4()), str(uuid4())], [UNKNOWN, UNKNOWN]])
async def test_repeated_or_empty_idempotency_key_is_refused(rest: Rest, keys: list[str]) -> None:
    product = await rest.product(stock=5)
    headers = [("Idempotency-Key", key) for key in keys]
    for path, body in (
        ("/api/v1/orders", rest.order_body(product["id"])),
        ("/api/v1/products", {"name": "x", "price": product["price"]}),
        (f"/api/v1/products/{product['id']}:adjustStock", {"delta": "-1"}),
    ):
        answer = await rest.http.post(path, json=body, headers=headers)
        rest.refused(answer, 400, 3, field="Idempotency-Key")
    assert await rest.stock(product["id"]) == 5


async def test_local_shop_serves_local_names_only(rest: Rest) -> None:
    """A page that points a name of its own at this machine reads nothing, and writes nothing."""
    assert (await rest.http.get("/api/v1/products", headers={"Host": "localhost:1234"})).status_code == 200
    rest.refused(await rest.http.get("/api/v1/orders", headers={"Host": "evil.example"}), 421, 3)
    rest.refused(await rest.http.post("/api/v1/orders", json={}, headers={"Host": "evil.example"}), 421, 3)


async def test_query_cannot_add_to_an_order(rest: Rest) -> None:
    product, other = await rest.product(stock=5), await rest.product(stock=5)
    body = rest.order_body(product["id"])
    for query in (f"items.productId={other['id']}&items.quantity=1", "shippingAddress=Elsewhere", "notes=x"):
        rest.refused(await rest.http.post(f"/api/v1/orders?{query}", json=body), 400, 3)
    assert (await rest.stock(product["id"]), await rest.stock(other["id"])) == (5, 5)


async def test_weak_etag_of_product_is_a_condition(rest: Rest) -> None:
    """The stock changes without it: two different answers have it."""
    path = f"/api/v1/products/{(await rest.product(stock=5))['id']}"
    before = (await rest.http.get(path)).headers["etag"]
    await rest.http.post(f"{path}:adjustStock", json={"delta": "1"})
    assert (await rest.http.get(path)).headers["etag"] == before
    assert before.startswith('W/"')
    first = await rest.http.patch(path, json={"variant": "a"}, headers={"If-Match": before})
    strong = first.headers["etag"].removeprefix("W/")
    second = await rest.http.patch(path, json={"variant": "b"}, headers={"If-Match": strong})
    assert (first.status_code, second.status_code) == (200, 200)
    for stale in (before, strong):
        rest.refused(await rest.http.patch(path, json={"variant": "c"}, headers={"If-Match": stale}), 409, 10)


async def test_concurrent_orders_do_not_oversell(rest: Rest) -> None:
    product = await rest.product(stock=7)
    body = rest.order_body(product["id"])
    answers = await asyncio.gather(*(rest.http.post("/api/v1/orders", json=body) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [400] * 5
    for answer in answers:
        if answer.status_code == 400:
            rest.refused(answer, 400, 9, reason="INSUFFICIENT_STOCK")
    assert await rest.stock(product["id"]) == 0


async def test_stale_etag_aborts(rest: Rest) -> None:
    order = await rest.order((await rest.product())["id"])
    await rest.http.post(f"/api/v1/orders/{order['id']}:process", json={})
    path, stale = f"/api/v1/orders/{order['id']}:deliver", order["etag"]
    in_body = await rest.http.post(path, json={"etag": stale})
    in_header = await rest.http.post(path, json={}, headers={"If-Match": f'"{stale}"'})
    for answer in (in_body, in_header):
        rest.refused(answer, 409, 10, reason="ETAG_MISMATCH")


Case = tuple[str, str, dict[str, Any], int, int, str]

ONE = {"items": [{"productId": UNKNOWN, "quantity": 1}]}

BAD: list[Case] = [
    ("GET", "/api/v1/products/not-a-uuid", {}, 400, 3, "id"),
    ("GET", f"/api/v1/products/{UNKNOWN}", {}, 404, 5, ""),
    ("GET", "/api/v1/orders/not-a-uuid", {}, 400, 3, "id"),
    ("GET", f"/api/v1/orders/{UNKNOWN}", {}, 404, 5, ""),
    ("POST", f"/api/v1/orders/{UNKNOWN}:process", {"json": {}}, 404, 5, ""),
    ("POST", "/api/v1/orders", {"json": {}}, 400, 3, "items"),
    ("POST", "/api/v1/orders", {"json": {"items": []}}, 400, 3, "items"),
    ("POST", "/api/v1/orders", {"json": {"items": [{"productId": "x", "quantity": 1}]}}, 400, 3, "items[0].product_id"),
    (
        "POST",
        "/api/v1/orders",
        {"json": {"items": [{"productId": UNKNOWN, "quantity": 0}]}},
        400,
        3,
        "items[0].quantity",
    ),
    (
        "POST",
        "/api/v1/orders",
        {"json": {"items": [{"productId": UNKNOWN, "quantity": -1}]}},
        400,
        3,
        "items[0].quantity",
    ),
    (
        "POST",
        "/api/v1/orders",
        {"json": {"items": [{"productId": UNKNOWN, "quantity": 1}] * 2}},
        400,
        3,
        "items[1].product_id",
    ),
    ("POST", "/api/v1/orders", {"json": {"items": [{"productId": UNKNOWN, "quantity": 1}]}}, 404, 5, ""),
    (
        "POST",
        "/api/v1/orders",
        {"content": b"no json", "headers": {"content-type": "application/json"}},
        400,
        3,
        "request",
    ),
    (
        "POST",
        "/api/v1/orders",
        {"content": b'{"items": "x"}', "headers": {"content-type": "application/json"}},
        400,
        3,
        "request",
    ),
    ("POST", "/api/v1/orders", {"json": ONE, "headers": {"Idempotency-Key": "mine"}}, 400, 3, "Idempotency-Key"),
    ("POST", "/api/v1/orders", {"json": ONE | {"requestId": "mine"}}, 400, 3, "request_id"),
    (
        "POST",
        "/api/v1/orders",
        {"json": ONE | {"requestId": str(uuid4())}, "headers": {"Idempotency-Key": str(uuid4())}},
        400,
        3,
        "request_id",
    ),
    ("POST", "/api/v1/products", {"json": {"name": "x"}}, 400, 3, "product.price.currency_code"),
    ("POST", "/api/v1/products", {"json": {"price": {"currencyCode": "EUR"}}}, 400, 3, "product.name"),
    ("GET", "/api/v1/products?pageToken=nonsense", {}, 400, 3, "page_token"),
    ("GET", "/api/v1/products?pageSize=-1", {}, 400, 3, "page_size"),
    ("GET", "/api/v1/products?orderBy=colour", {}, 400, 3, "order_by"),
    ("GET", "/api/v1/products?bogus=1", {}, 400, 3, "request"),
    ("PATCH", f"/api/v1/products/{UNKNOWN}?updateMask=colour", {"json": {"name": "x"}}, 400, 3, "update_mask"),
    ("GET", f"/api/v1/products:batchGet?ids={UNKNOWN}", {}, 404, 5, ""),
    ("GET", "/api/v1/nothing", {}, 404, 5, ""),
    ("GET", "/nothing", {}, 404, 5, ""),
]


@pytest.mark.parametrize(("method", "path", "extra", "http", "code", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_bad_input_error_names_the_field(
    rest: Rest, method: str, path: str, extra: dict[str, Any], http: int, code: int, field: str
) -> None:
    rest.refused(await rest.http.request(method, path, **extra), http, code, field=field)


async def test_page_token_of_another_query_is_refused(rest: Rest) -> None:
    page = (await rest.http.get("/api/v1/products", params={"pageSize": "1"})).json()
    query = {"pageSize": "1", "orderBy": "name", "pageToken": page["nextPageToken"]}
    rest.refused(await rest.http.get("/api/v1/products", params=query), 400, 3, field="page_token")


async def test_order_in_two_currencies_takes_no_stock(rest: Rest) -> None:
    euro, dollar = await rest.product(stock=2), await rest.product(stock=2, currency="USD")
    body = rest.order_body(euro["id"])
    body["items"].append({"productId": dollar["id"], "quantity": 1})
    rest.refused(await rest.http.post("/api/v1/orders", json=body), 400, 9, reason="CURRENCY_MISMATCH")
    assert (await rest.stock(euro["id"]), await rest.stock(dollar["id"])) == (2, 2)


async def test_insufficient_stock_error_has_the_stock_left(rest: Rest) -> None:
    product = await rest.product(stock=2)
    answer = await rest.http.post("/api/v1/orders", json=rest.order_body(product["id"], 3))
    status = rest.refused(answer, 400, 9, reason="INSUFFICIENT_STOCK")
    info = next(each for each in status["details"] if each["@type"].endswith("ErrorInfo"))
    assert info["metadata"]["available"] == "2"
    assert await rest.stock(product["id"]) == 2


async def test_deleted_product_cannot_be_ordered(rest: Rest) -> None:
    product = await rest.product()
    await rest.http.delete(f"/api/v1/products/{product['id']}")
    answer = await rest.http.post("/api/v1/orders", json=rest.order_body(product["id"]))
    rest.refused(answer, 400, 9, reason="PRODUCT_DELETED")


async def test_internal_services_cannot_be_reached(rest: Rest) -> None:
    for path in (
        "/shop.product.v1.StockService/ReserveStock",
        "/shop.order.v1.StatusFeedService/FollowOrders",
        "/shop.product.v1.StockService/ReleaseReservation",
    ):
        answer = await rest.http.post(path, json={})
        assert answer.status_code in (404, 415), (path, answer)


async def test_large_body_is_refused(rest: Rest) -> None:
    answer = await rest.http.post("/api/v1/orders", json={"notes": "x" * 2_000_000})
    assert answer.status_code == 413
    assert httpx.codes.is_client_error(answer.status_code)
    assert set(answer.json()) == {"code", "message", "details"}


async def test_large_response_passes_whole(rest: Rest) -> None:
    """A page may have three megabytes; by default the transcoder would end with the HTTP/2 window of 64 KiB."""
    price = {"currencyCode": "EUR", "units": "1"}
    for n in range(30):
        body = {"name": f"Large {n}", "category": "Large", "description": "\U0001f381" * 10_000, "price": price}
        (await rest.http.post("/api/v1/products", json=body)).raise_for_status()
    answer = await rest.http.get("/api/v1/products", params={"category": "Large", "pageSize": 100})
    assert len(answer.content) > 1_000_000
    assert len(answer.json()["products"]) == 30
