"""The traces of a cart that becomes an order and is followed to its end, received over OTLP in this very process."""

import asyncio
from pathlib import Path

import grpc
import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.otlp import attributes_of, otlp_receiver
from tests.support.shop import run_shop
from tests.support.traced_life import Life, check, check_unsampled, trade


async def live(folder: Path) -> Life:
    """Runs a shop whose edge samples nothing, and callers that decide for themselves."""
    life = Life()
    async with otlp_receiver() as life.receiver:
        variables = {"LOG_FORMAT": "json", "TRACES_SAMPLE_RATIO": "0", **life.receiver.variables()}
        with run_shop(folder, variables) as shop:
            async with httpx.AsyncClient(base_url=shop.url, timeout=20) as http:
                await trade(http)
            await eventually(lambda: life.complete)
        life.logs = {path.name: path.read_text() for path in (folder / "logs").iterdir()}
    return life


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return asyncio.run(live(tmp_path_factory.mktemp("shop")))


def test_request_is_one_trace_to_both_databases(life: Life) -> None:
    check(life)


def test_opening_of_a_stream_ends_before_the_stream(life: Life) -> None:
    opened, edge = life.span("follow", "stream.open"), life.span("follow", "ingress")
    assert opened.end_time_unix_nano < edge.end_time_unix_nano


def test_unsampled_call_sends_nothing_and_passes_its_context_on(life: Life) -> None:
    check_unsampled(life)
    for log in ("order.log", "product.log"):
        for name in ("buy", "buy-unsampled"):
            assert life.lines(log, name), f"no line of {log} has the trace id of {name}"


def test_spans_have_the_attributes_of_the_conventions(life: Life) -> None:
    insert = attributes_of(life.span("order", "order.insert").attributes)
    text = insert.pop("db.query.text")
    assert insert == {"db.system.name": "postgresql", "db.namespace": "order", "db.query.summary": "order.insert"}
    assert "INSERT INTO orders" in text
    order = attributes_of(life.server_span("order").attributes)
    assert (order["rpc.service"], order["rpc.method"]) == ("shop.order.v1.OrderService", "CreateOrder")
    missing = life.server_span("missing")
    [code] = [each.value.int_value for each in missing.attributes if each.key == "rpc.grpc.status_code"]
    assert code == grpc.StatusCode.NOT_FOUND.value[0]
    assert not missing.status.code, "a refusal is no error of the server"


def test_nothing_private_is_sent_or_logged(life: Life) -> None:
    kept = life.receiver.text() + life.receiver.metrics_text() + "".join(life.logs.values())
    for private in ("ada@", "ada%40", "Lovelace", "James", "+44", "secret-"):
        assert private not in kept, private
