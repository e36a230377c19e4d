"""One trace from the edge through order, product and SQL, received over OTLP in this very process."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.otlp import Receiver, otlp_receiver
from tests.support.rest import Rest
from tests.support.shop import run_shop


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with otlp_receiver() as running:
        yield running


async def test_order_is_one_trace_from_edge_to_sql(receiver: Receiver, tmp_path: Path) -> None:
    trace = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
    with run_shop(tmp_path, {**receiver.variables(), "LOG_FORMAT": "json"}) as shop:
        async with httpx.AsyncClient(base_url=shop.url) as http:
            product = await Rest(http).product()
            headers = {"traceparent": f"00-{trace.hex()}-b7ad6b7169203331-01"}
            answer = await http.post("/api/v1/orders", json=Rest.order_body(product["id"]), headers=headers)
            assert answer.status_code == 200, answer.text
            order_id = answer.json()["id"]
            await http.post(f"/api/v1/orders/{order_id}:cancel")
            for path in (
                "/api/v1/orders?customerEmail=ada%40example.com",
                "/api/v1/orders?customerEmail=ada@example.com&status=PLACED",
                "/api/v1/products?search=secret-word",
                f"/api/orders/stream?order_id={order_id}&token=secret-token",
            ):
                assert (await http.get(path, headers=headers)).status_code == 200, path

        async with asyncio.timeout(20):
            while not (
                (reserve := receiver.find("product", "stock.reserve", trace))
                and (insert := receiver.find("order", "order.insert", trace))
                # edge → order (server) → SQL, and edge → order (server) → order (client) → product (server) → SQL
                and compact(receiver.chain(insert)) == ["shop-edge", "order"]
                and compact(receiver.chain(reserve)) == ["shop-edge", "order", "product"]
                and receiver.find("order", "order.list", trace)
                and receiver.find("product", "product.search", trace)
            ):
                await asyncio.sleep(0.1)
        assert reserve.parent_span_id != insert.parent_span_id
        # Nothing of whoever ordered, nor of what anybody looked for, in anything that anybody sent or logged.
        kept = receiver.text() + "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        for private in ("ada@", "ada%40", "Lovelace", "James", "+44", "secret-"):
            assert private not in kept, private

        logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("order*.log")))
        lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
        placed = [line for line in lines if line.get("trace_id") == trace.hex()]
        assert placed, "the order's log lines have its trace"


def compact(chain: list[str]) -> list[str]:
    """Neighbours of one service counted once."""
    return [each for index, each in enumerate(chain) if index == 0 or chain[index - 1] != each]
