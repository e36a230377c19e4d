"""REST at the edge: how Envoy transcodes, and what it answers by itself."""

from typing import Any

import httpx
import pytest

from tests.support.edge import Edge, edge_fixture, http_fixture
from tests.support.eventually import eventually
from tests.support.rest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

refused = Rest.refused


shop = edge_fixture()
http = http_fixture()


async def test_response_has_fields_with_default_values(http: httpx.AsyncClient) -> None:
    """A stock of 0 and an empty list are answers, not absences; int64 is a JSON string."""
    product = (await http.get("/api/v1/products/abc")).json()
    assert (product["id"], product["stock"], product["name"]) == ("abc", "0", "")
    assert (await http.get("/api/v1/orders/abc")).json()["items"] == []


async def test_enum_is_written_by_name(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/orders/abc")).json()["status"] == "PLACED"


async def test_initial_metadata_becomes_a_response_header(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/products/abc")).headers["etag"] == '"7"'


async def test_plus_in_a_query_is_a_space(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products?search=a+b%2Bc")
    assert answer.json()["products"][0]["name"] == "a b+c"


async def test_list_query_parameter_can_be_repeated(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products:batchGet?ids=a&ids=b")
    assert [each["id"] for each in answer.json()["products"]] == ["a", "b"]


async def test_product_can_be_read_changed_and_sent_back(http: httpx.AsyncClient) -> None:
    """The same id in path and body is no conflict."""
    product = (await http.get("/api/v1/products/abc")).json()
    answer = await http.patch("/api/v1/products/abc?updateMask=name,price", json={**product, "name": "x"})
    assert (answer.json()["id"], answer.json()["name"]) == ("abc", "x")


@pytest.mark.parametrize(
    ("product", "status", "code", "detail"),
    [
        ("missing", 404, 5, {"reason": "PRODUCT_NOT_FOUND", "domain": "shop", "metadata": {"id": "missing"}}),
        ("malformed", 400, 3, {"fieldViolations": [{"field": "id", "description": "must be a UUID", "reason": ""}]}),
        ("busy", 429, 8, {"retryDelay": "1.500s"}),
        ("late", 504, 4, {"reason": "QUERY_TIMEOUT", "domain": "shop", "metadata": {}}),
    ],
)
async def test_error_details_are_in_the_json(
    http: httpx.AsyncClient, product: str, status: int, code: int, detail: dict[str, Any]
) -> None:
    """ErrorInfo, BadRequest and RetryInfo are in the descriptor set; an unknown type would empty the body."""
    error = refused(await http.get(f"/api/v1/products/{product}"), status, code)
    assert [{key: value for key, value in each.items() if key != "@type"} for each in error["details"]] == [detail]


JSON = {"content-type": "application/json"}

BAD: list[tuple[str, str, dict[str, Any], int, int]] = [
    ("GET", "/nothing", {}, 404, 5),
    ("GET", "/api/v1/nothing", {}, 404, 5),
    ("GET", "/api/v1/products?bogus=1", {}, 400, 3),
    ("PUT", "/api/v1/products/abc", {"json": {}}, 405, 12),
    ("POST", "/api/orders/stream", {"json": {}}, 405, 12),
    ("POST", "/api/v1/orders/o1:zap", {"json": {}}, 404, 5),
    ("GET", "/api/v1/orders/o1:zap", {}, 404, 5),
    ("POST", "/api/v1/products", {"content": "not json", "headers": JSON}, 400, 3),
    ("POST", "/api/v1/products", {"content": '{"name":', "headers": JSON}, 400, 3),
    ("POST", "/api/v1/products", {"content": "[]", "headers": JSON}, 400, 3),
    ("POST", "/api/v1/products", {"json": {"stock": "many"}}, 400, 3),
    ("POST", "/api/v1/products", {"content": b"x" * 1_100_000, "headers": JSON}, 413, 3),
    ("GET", "/api/v1/orders/a%2fb", {}, 400, 3),
    ("GET", "/api/v1/products", {"headers": {"long": "x" * 40_000}}, 431, 3),
    ("POST", "/shop.product.v1.ProductService/GetProduct", {"json": {}}, 415, 3),
    ("POST", "/shop.product.v1.StockService/ReleaseReservation", {"json": {}}, 415, 3),
    ("POST", "/api/v1/reservations", {"json": {}}, 404, 5),
]


@pytest.mark.parametrize(("method", "path", "extra", "status", "code"), BAD)
async def test_errors_of_envoy_have_the_shape_of_a_service(
    http: httpx.AsyncClient, method: str, path: str, extra: dict[str, Any], status: int, code: int
) -> None:
    refused(await http.request(method, path, **extra), status, code)


@pytest.mark.parametrize(
    ("method", "path", "extra"),
    [
        ("GET", "/api/v1/orders/abc?id=zz", {}),
        ("GET", "/api/v1/orders/abc?%69d=zz", {}),
        ("GET", "/api/v1/orders/abc?x=1&%69%64=zz", {}),
        ("GET", "/api/v1/products/abc?id=zz", {}),
        ("POST", "/api/v1/orders/abc:cancel?id=zz", {"json": {}}),
        ("POST", "/api/v1/orders/abc:cancel", {"json": {"id": "zz"}}),
        ("PATCH", "/api/v1/products/abc?product.id=zz", {"json": {}}),
        ("PATCH", "/api/v1/products/abc?product%2Eid=zz", {"json": {}}),
        ("PATCH", "/api/v1/products/abc", {"json": {"id": "zz"}}),
    ],
)
async def test_id_in_the_path_cannot_be_overridden(
    http: httpx.AsyncClient, method: str, path: str, extra: dict[str, Any]
) -> None:
    """Or a request would act on another resource than the one that logs and rules saw."""
    refused(await http.request(method, path, **extra), 400, 3)


@pytest.mark.parametrize("path", ["products/abc?product.name=zz", "products/abc?updateMask=name&product.price.units=1"])
async def test_query_cannot_change_a_product(http: httpx.AsyncClient, path: str) -> None:
    refused(await http.patch(f"/api/v1/{path}", json={"variant": "q"}), 400, 3)


async def test_malformed_grpc_timeout_is_refused(http: httpx.AsyncClient) -> None:
    refused(await http.get("/api/v1/products/abc", headers={"grpc-timeout": "abc"}), 400, 3)
    assert (await http.get("/api/v1/products/abc", headers={"grpc-timeout": "5S"})).status_code == 200


async def test_percent_sign_in_a_query_value_is_kept(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/products?category=a&search=100%25&order_by=name%20desc")
    assert answer.json()["products"][0]["name"] == "100%"


async def test_rest_call_gets_a_deadline(shop: Edge, http: httpx.AsyncClient) -> None:
    """REST has none of its own: without one a service could not tell when nobody waits any more."""
    await http.get("/api/v1/products/abc")
    assert 5 < shop.calls.seconds_left < 10.1
    await http.get("/api/v1/products/abc", headers={"grpc-timeout": "2S"})
    assert shop.calls.seconds_left < 2.1


async def test_request_past_its_deadline_gets_504(http: httpx.AsyncClient) -> None:
    refused(await http.get("/api/v1/products/slow", headers={"grpc-timeout": "300m"}), 504, 4)


async def test_headers_of_the_edge_cannot_be_forged(shop: Edge, http: httpx.AsyncClient) -> None:
    sent = {
        "idempotency-key": "k",
        "if-match": '"7"',
        "x-shop-caller": "mallory",
        "x-envoy-external-address": "10.0.0.1",
        "x-envoy-retry-on": "5xx",
        "x-request-id": "mine",
        "x-forwarded-for": "10.9.9.9",
    }
    answer = await http.post("/api/v1/orders", json={}, headers=sent)
    got = shop.calls.metadata
    assert (got["idempotency-key"], got["if-match"]) == ("k", '"7"')
    assert not {"x-shop-caller", "x-envoy-retry-on", "x-envoy-internal"} & set(got)
    assert got["x-request-id"] == answer.headers["x-request-id"] != "mine"
    assert got["x-envoy-external-address"] == "127.0.0.1"


async def test_header_with_underscore_cannot_name_the_caller(shop: Edge, http: httpx.AsyncClient) -> None:
    """A gateway in front may set it; one that does not also remove what clients send lets them name themselves."""
    assert (await http.post("/api/v1/orders", json={}, headers={"x-caller": "ada"})).status_code == 200
    assert shop.calls.metadata["x-caller"] == "ada"
    assert (await http.post("/api/v1/orders", json={}, headers={"x_caller": "ada"})).status_code == 200
    assert not {"x_caller", "x-caller"} & set(shop.calls.metadata)


async def test_client_cannot_set_retries_of_the_edge(shop: Edge, http: httpx.AsyncClient) -> None:
    shop.calls.count.clear()
    sent = {"x-envoy-retry-grpc-on": "unavailable", "x-envoy-max-retries": "9", "x-envoy-upstream-rq-timeout-ms": "1"}
    refused(await http.post("/api/v1/products", json={"name": "flaky"}, headers=sent), 503, 14)
    assert shop.calls.count["CreateProduct flaky"] == 1


async def test_only_reads_are_retried(shop: Edge, http: httpx.AsyncClient) -> None:
    shop.calls.count.clear()
    assert (await http.get("/api/v1/products/flaky")).status_code == 200
    assert shop.calls.count["GetProduct flaky"] == 3
    refused(await http.get("/api/v1/products/late"), 504, 4)
    assert shop.calls.count["GetProduct late"] == 1, "what took too long would take its time again"
    error = refused(await http.post("/api/v1/products", json={"name": "flaky"}), 503, 14)
    assert error["details"][0]["retryDelay"] == "1s"
    assert shop.calls.count["CreateProduct flaky"] == 1


async def test_response_headers_hide_envoy(http: httpx.AsyncClient) -> None:
    headers = (await http.get("/api/v1/products/abc")).headers
    assert headers["server"] == "shop"
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name.startswith("x-envoy")]


async def test_other_origin_is_not_allowed_by_default(http: httpx.AsyncClient) -> None:
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "GET"}
    answer = await http.options("/api/v1/products", headers=asked)
    assert "access-control-allow-origin" not in answer.headers


async def test_access_log_omits_queries_and_health_checks(shop: Edge, http: httpx.AsyncClient) -> None:
    """A query can hold an e-mail address."""
    await http.get("/healthz")
    await http.get("/api/v1/products?search=ada@example.com")
    await eventually(lambda: [entry["path"] for entry in shop.access_log()][-1:] == ["/api/v1/products"], 5)
    paths = [entry["path"] for entry in shop.access_log()]
    assert "/api/v1/products/abc" in paths
    assert "/healthz" not in paths
    assert "ada@" not in shop.log.read_text()


async def test_failed_health_check_still_serves_requests(shop: Edge, http: httpx.AsyncClient) -> None:
    """So that a load balancer goes elsewhere while requests are still answered."""
    assert (await http.get("/healthz")).status_code == 200
    await http.post(f"{shop.admin}/healthcheck/fail")
    assert (await http.get("/healthz")).status_code == 503
    assert (await http.get("/api/v1/products/abc")).status_code == 200
    await http.post(f"{shop.admin}/healthcheck/ok")
