"""Envoy's statistics on a port of their own, for Prometheus."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from local.settings import free_ports
from tests.support.edge import Edge, edge
from tests.support.metrics import scrape_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/stats/prometheus"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Edge]:
    hosts = ("localhost", "127.0.0.1")
    async with edge(metrics_port=free_ports(1)[0], hosts=hosts) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def metrics(shop: Edge) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://127.0.0.1:{shop.settings.metrics_port}"
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        yield http


async def test_requests_are_counted() -> None:
    port = free_ports(1)[0]
    async with edge(metrics_port=port, rate_limit=1, rate_burst=10) as limited:
        async with httpx.AsyncClient(base_url=limited.url) as http:
            assert (await http.get("/api/v1/products/missing")).status_code == 404
            statuses = [(await http.get("/api/v1/products/abc")).status_code for _ in range(30)]
        seen = await scrape_envoy(port)
    refused = statuses.count(429)
    assert refused > 0
    listener = {"envoy_http_conn_manager_prefix": "edge"}
    assert seen.value("envoy_http_downstream_rq_total", **listener) == 31
    assert seen.value("envoy_http_downstream_rq_xx", **listener, envoy_response_code_class="2") == 30 - refused
    assert seen.value("envoy_http_downstream_rq_xx", **listener, envoy_response_code_class="4") == 1 + refused
    assert seen.value("envoy_http_downstream_rq_xx", **listener, envoy_response_code_class="5") == 0
    assert seen.value("envoy_http_local_rate_limit_rate_limited") == refused
    assert seen.value("envoy_cluster_upstream_rq_total", envoy_cluster_name="product") == 31 - refused


PAGES = ("/", "/stats", "/metrics", "/config_dump", "/clusters", "/certs", "/server_info", "/help", "/ready", "/memory")
VARIANTS = (f"{PATH}/", f"{PATH}?usedonly", f"{PATH}?filter=.*", f"/{PATH}", "/stats%2fprometheus")


@pytest.mark.parametrize("path", [*PAGES, *VARIANTS])
async def test_nothing_else_of_the_admin_is_served(metrics: httpx.AsyncClient, path: str) -> None:
    assert (await metrics.get(path)).status_code == 404


@pytest.mark.parametrize("path", [PATH, "/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/reset_counters"])
async def test_nothing_can_be_changed(metrics: httpx.AsyncClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert (await metrics.request(method, path)).status_code == 404, method
    assert (await metrics.get(PATH)).status_code == 200


async def test_other_host_names_are_refused(metrics: httpx.AsyncClient) -> None:
    """A page of another site could read the metrics of a shop on loopback by a name of its own."""
    assert (await metrics.get(PATH, headers={"host": "evil.example"})).status_code == 404


async def test_edge_does_not_serve_its_statistics(shop: Edge) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        assert (await http.get(PATH)).status_code == 404


async def test_statistics_are_served_without_connections_to_spare() -> None:
    port = free_ports(1)[0]
    rewrites = {'max_active_downstream_connections: "26214"': 'max_active_downstream_connections: "1"'}
    async with edge(metrics_port=port, rewrites=rewrites) as full:
        async with full.connection(), httpx.AsyncClient() as http:
            with pytest.raises(httpx.HTTPError):
                await http.get(f"{full.url}/healthz")
            seen = await scrape_envoy(port)
            assert seen.value("envoy_server_live") == 1
