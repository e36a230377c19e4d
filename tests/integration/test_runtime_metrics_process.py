"""What every process measures of itself, each by its real cause."""

import asyncio
import threading
import time
from collections.abc import Sequence
from uuid import uuid4

import grpc
import pytest
from shop.product.v1 import product_pb2

from local.settings import free_ports
from runtime import supervise
from runtime.access import keys as keys_module
from runtime.access.caller import Caller
from runtime.access.gate import Gate
from runtime.access.key_sources import DiscoverySource
from runtime.batch import Batcher
from runtime.errors import TOKEN_EXPIRED, ApiError, unauthenticated, unavailable
from runtime.supervise import Job, supervised
from runtime.telemetry.event_loop import EventLoopLag
from runtime.telemetry.metrics import Metrics
from runtime.telemetry.parts import measure_batches, measure_jobs
from runtime.telemetry.system import measure_process
from runtime.worker import Worker
from tests.support.access import bearer, credential, open_access
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, measuring, read, scrape
from tests.support.oidc import oidc_provider
from tests.support.product import UNKNOWN, ProductShop, product_shop

LAG = "shop_event_loop_lag_seconds"
LONGEST = "shop_event_loop_max_lag_seconds"


@pytest.fixture
def metrics() -> Metrics:
    return measuring()


@pytest.fixture
def metrics_port() -> int:
    return free_ports(1)[0]


async def test_process_counts_what_it_uses(metrics: Metrics) -> None:
    measure_process(metrics)
    before = read(metrics)
    assert 10e6 < before.value("process_memory_usage_bytes") < 10e9
    ballast = bytearray(50_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    with open(__file__), open(__file__):
        after = read(metrics)
    used = [each.value("process_cpu_time_seconds_total") for each in (before, after)]
    assert 0.1 < used[1] - used[0] < 5
    assert after.value("process_memory_usage_bytes") - before.value("process_memory_usage_bytes") > 40e6
    names = "process_open_file_descriptor_count"
    assert after.value(names) - before.value(names) == 2
    assert 0 < after.value("process_uptime_seconds") < 60
    assert all(before.values("process_cpu_time_seconds_total", cpu_mode=mode) for mode in ("user", "system"))


async def test_blocked_event_loop_shows(metrics: Metrics) -> None:
    during: list[float] = []
    lag = EventLoopLag(metrics)
    async with lag.measured():
        await asyncio.sleep(0.3)
        reader = threading.Timer(0.4, lambda: during.append(lag.max_lag()))
        reader.start()
        time.sleep(0.6)  # the fault
        await asyncio.sleep(0.2)
    seen = read(metrics)
    assert 0.45 < seen.value(LONGEST) < 3
    assert during[0] > 0.2, "it shows while it lasts"
    assert seen.value(f"{LAG}_bucket", le="+Inf") - seen.value(f"{LAG}_bucket", le="0.25") >= 1
    assert seen.value(f"{LAG}_sum") >= 0.45


async def test_longest_lag_is_forgotten(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.telemetry.event_loop.WINDOW", 0.5)
    lag = EventLoopLag(metrics)
    async with lag.measured():
        await asyncio.sleep(0.05)
        time.sleep(0.4)  # the fault
        await asyncio.sleep(0.15)
        assert lag.max_lag() > 0.25
        await eventually(lambda: lag.max_lag() < 0.2)


async def test_failing_steps_show_and_age(metrics: Metrics) -> None:
    fails = True

    async def step() -> bool:
        if fails:
            raise unavailable("product is away")
        return False

    worker = Worker("relay", step, 0.05)
    job = Job("the relay", worker.run)
    other = Job("the tailer", asyncio.Event().wait)
    measure_jobs(metrics, [job, other], [worker])
    assert read(metrics).values("shop_jobs_failures_total", job_name="relay") == [0]
    assert read(metrics).value("shop_jobs_interval_seconds", job_name="relay") == 0.05
    async with supervised(job, other):
        await eventually(lambda: read(metrics).value("shop_jobs_failures_total", job_name="relay") >= 3)
        await asyncio.sleep(0.3)
        assert read(metrics).value("shop_jobs_age_seconds", job_name="relay") > 0.3
        fails = False
        await eventually(lambda: read(metrics).value("shop_jobs_age_seconds", job_name="relay") < 0.2)
    assert read(metrics).values("shop_jobs_failures_total", job_name="tailer") == [0]


async def test_restarts_of_a_job_are_counted(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "RESTART_PAUSES", (0.01, 0.01))

    async def fail() -> None:
        raise RuntimeError("a fault")

    job = Job("the tailer", fail)
    measure_jobs(metrics, [job])
    async with supervised(job):
        await eventually(lambda: read(metrics).value("shop_jobs_failures_total", job_name="tailer") >= 2)


async def test_full_batches_show(metrics: Metrics) -> None:
    go_on = asyncio.Event()

    async def run(requests: Sequence[int]) -> Sequence[int]:
        await go_on.wait()
        return requests

    batcher = Batcher("order.insert batch", run, max_waiting=2)
    measure_batches(metrics, batcher)
    assert read(metrics).values("shop_batch_refusals_total", batch="order.insert") == [0]
    calls = [asyncio.create_task(batcher(number)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="queue is full"):
        await batcher(3)
    assert read(metrics).values("shop_batch_waiting", batch="order.insert") == [2]
    assert read(metrics).values("shop_batch_refusals_total", batch="order.insert") == [1]
    go_on.set()
    await asyncio.gather(*calls)
    assert read(metrics).values("shop_batch_waiting", batch="order.insert") == [0]


async def code_of_call(shop: ProductShop, token: str = "") -> str:
    """The code that a caller of a method for staff gets."""
    request = product_pb2.AdjustStockRequest(id=UNKNOWN, delta=1, request_id=str(uuid4()))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.products.AdjustStock(request, metadata=bearer(token) if token else ())
    return str(error.value.code().name)


async def test_issuer_that_is_away_shows(
    product_database: str, metrics_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiscoverySource, "min_interval", 0.1)
    monkeypatch.setattr(keys_module, "RETRY_PAUSES", (0.1, 0.1))
    with oidc_provider() as provider:
        provider.go_away()
        async with product_shop(product_database, METRICS_PORT=str(metrics_port), **provider.variables()) as shop:
            assert await code_of_call(shop, provider.token("ada", staff=True)) == "UNAVAILABLE"
            await asyncio.sleep(1)
            seen = await scrape(metrics_port)
            fetches = "shop_access_key_fetches_total"
            assert seen.value(fetches, outcome="failed") >= 1
            assert seen.values(fetches, outcome="ok") == [0]
            age = seen.value("shop_access_keys_age_seconds")
            assert age >= 1
            assert seen.value("shop_access_refusals_total", reason="UNAVAILABLE") == 1
            provider.come_back()

            async def has_keys() -> bool:
                return (await scrape(metrics_port)).value(fetches, outcome="ok") >= 1

            await eventually(has_keys)
            assert (await scrape(metrics_port)).value("shop_access_keys_age_seconds") < age


async def test_refusals_are_counted_by_reason(product_database: str, metrics_port: int) -> None:
    with oidc_provider() as provider:
        async with product_shop(product_database, METRICS_PORT=str(metrics_port), **provider.variables()) as shop:
            expired = provider.token("ada", staff=True, ttl=-3600)
            for token in ("", "no token", "nonsense", expired, provider.token("ada")):
                await code_of_call(shop, token)
            seen = await scrape(metrics_port)
    counts = {
        reason: seen.value("shop_access_refusals_total", reason=reason)
        for reason in ("TOKEN_REQUIRED", "TOKEN_INVALID", "TOKEN_EXPIRED", "STAFF_REQUIRED", "UNAVAILABLE")
    }
    assert counts == {
        "TOKEN_REQUIRED": 1,
        "TOKEN_INVALID": 2,
        "TOKEN_EXPIRED": 1,
        "STAFF_REQUIRED": 1,
        "UNAVAILABLE": 0,
    }


async def test_refusals_on_behalf_of_other_processes_are_counted() -> None:
    class NoTokens:
        async def verify(self, token: str, max_waiting: int | None = None) -> Caller:
            raise unauthenticated(TOKEN_EXPIRED, "the token has expired")

    gate = Gate(open_access(), credential(), NoTokens())
    with pytest.raises(ApiError):
        await gate.identify(["Bearer token"])
    assert gate.refusals[TOKEN_EXPIRED] == 1


async def test_metrics_are_served_without_a_database(metrics_port: int) -> None:
    async with product_shop(
        "host=127.0.0.1 port=1 user=product dbname=product", METRICS_PORT=str(metrics_port)
    ) as shop:

        async def is_down() -> Scrape:
            seen = await scrape(metrics_port)
            assert seen.values("shop_database_up", pool="product stock") == [0]
            return seen

        seen = await eventually(is_down)
        assert seen.values("shop_server_ready") == [0]
        assert await code_of_call(shop) == "UNAVAILABLE"


async def test_metrics_are_served_while_the_process_drains(product_database: str, metrics_port: int) -> None:
    leave = asyncio.Event()
    ready = asyncio.Event()

    async def serve() -> None:
        variables = {"METRICS_PORT": str(metrics_port), "SHUTDOWN_DELAY": "2"}
        async with product_shop(product_database, **variables) as shop:
            await eventually(lambda: shop.server.ready)
            ready.set()
            await leave.wait()

    serving = asyncio.create_task(serve())
    await asyncio.wait_for(ready.wait(), 30)
    assert (await scrape(metrics_port)).values("shop_server_ready") == [1]
    leave.set()

    async def drains() -> bool:
        return (await scrape(metrics_port)).values("shop_server_ready") == [0]

    await eventually(drains, 1.5)
    assert not serving.done()
    await serving
