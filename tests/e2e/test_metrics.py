"""The metrics of all processes of a shop."""

import httpx

from tests.support.metrics import Scrape, scrape, scrape_envoy
from tests.support.rest import Rest
from tests.support.shop import RunningShop


async def test_an_order_is_counted_by_all_processes(measured_shop: RunningShop) -> None:
    ports = measured_shop.shop.metrics_ports

    async def counted() -> dict[str, float]:
        product, order = await scrape(ports["product"]), await scrape(ports["order"])
        sse, envoy = await scrape(ports["sse"]), await scrape_envoy(ports["envoy"])
        method = "shop.order.v1.OrderService/CreateOrder"
        return {
            "held": product.value("shop_stock_reservations_total", result="held"),
            "calls": order.value("rpc_server_call_duration_seconds_count", rpc_method=method),
            "events": sse.value("shop_stream_events_total"),
            "requests": _requests(envoy),
        }

    before = await counted()
    async with httpx.AsyncClient(base_url=measured_shop.url, timeout=30) as http:
        rest = Rest(http)
        product = await rest.product(stock=5)
        order = await rest.order(product["id"])
        await http.post(f"/api/v1/orders/{order['id']}:cancel", json={})
        await http.get("/api/orders/stream", params={"order_id": order["id"]})
        await rest.delete_products()
    after = await counted()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["held"] == grown["calls"] == 1
    assert grown["events"] == 2
    assert grown["requests"] >= 4


def _requests(envoy: Scrape) -> float:
    return envoy.value("envoy_http_downstream_rq_total", envoy_http_conn_manager_prefix="edge")


def test_shop_serves_no_metrics_by_default(shop: RunningShop) -> None:
    assert shop.shop.metrics_ports == {}
    admin = httpx.get(f"http://127.0.0.1:{shop.shop.admin_port}/listeners?format=json").json()
    assert [each["name"] for each in admin["listener_statuses"]] == ["edge"]
