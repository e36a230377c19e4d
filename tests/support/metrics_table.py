"""What the processes of a shop measure.

`python -m tests.support.metrics_table --write` writes docs/metrics.md's table.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench import report
from tests.support.eventually import eventually
from tests.support.metrics import Scrape, scrape
from tests.support.rest import Rest
from tests.support.shop import RunningShop, run_shop

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
PLACE = "metrics"
"""The name of the place in docs/metrics.md."""

PROCESSES = ("product", "order", "sse")
ENVIRONMENT = {"TELEMETRY": "1", "AUTH_MODE": "jwt"}
"""Of a shop with every metric: with AUTH_MODE=jwt there are those of the keys."""

OF_THE_SDK = {"target_info"}


async def use(shop: RunningShop) -> None:
    """Does in a shop what begins every metric: some have no series before the first event."""
    async with grpc.aio.insecure_channel(shop.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest())
    async with httpx.AsyncClient(base_url=shop.url, timeout=30, headers=shop.authorization(staff=True)) as http:
        rest = Rest(http)
        product = await rest.product(stock=5)
        http.headers.update(shop.authorization())
        order = await rest.order(product["id"])
        await http.post(f"/api/v1/orders/{order['id']}:cancel", json={})
        http.headers.update(shop.authorization(staff=True))

        async def calls_waited() -> bool:
            await asyncio.gather(*(http.get(f"/api/v1/orders/{order['id']}") for _ in range(100)))
            await asyncio.gather(*(http.get(f"/api/v1/products/{product['id']}") for _ in range(100)))
            seen = await read(shop)
            waits = "db_client_connection_wait_time_seconds_count"
            return bool(seen["product"].value(waits) and seen["order"].value(waits))

        await eventually(calls_waited, 60)
        await rest.delete_products()


async def read(shop: RunningShop) -> Mapping[str, Scrape]:
    """Returns what each process says."""
    return {process: await scrape(shop.shop.metrics_ports[process]) for process in PROCESSES}


def table(seen: Mapping[str, Scrape]) -> str:
    """Returns docs/metrics.md's table: a row for each metric, with the processes that have it."""
    found: dict[str, list[str]] = {}
    processes: dict[str, list[str]] = {}
    for process, scraped in seen.items():
        for family in scraped.families:
            if not family.samples or family.name in OF_THE_SDK:
                continue
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            shown = " ".join(f"`{name}`" for name in sorted(labels))
            found.setdefault(family.name, [f"`{family.name}`", family.type, shown, family.documentation])
            processes.setdefault(family.name, []).append(process)
    rows = [[*row[:3], ", ".join(processes[name]), row[3]] for name, row in sorted(found.items())]
    head = [["metric", "type", "labels", "processes", "description"], ["---"] * 5]
    return "\n".join(f"| {' | '.join(row)} |" for row in head + rows)


async def _write() -> None:
    with tempfile.TemporaryDirectory() as folder, run_shop(Path(folder), ENVIRONMENT) as shop:
        await use(shop)
        report.write(PAGE, PLACE, f"\n{table(await read(shop))}\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.support.metrics_table --write")
    asyncio.run(_write())
