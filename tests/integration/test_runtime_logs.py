"""The lines about calls, from a real server, as a collector of logs reads them."""

from collections.abc import Iterator
from typing import Any

import pytest

from local.settings import free_ports
from runtime.limited_log import SUPPRESSED
from tests.support.echo_server import echo_server
from tests.support.logs import WrittenLog, written_log
from tests.support.metrics import scrape

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def written() -> Iterator[WrittenLog]:
    with written_log("shop.rpc") as log:
        yield log


async def test_call_is_one_line_with_its_ids(free_port: int, written: WrittenLog) -> None:
    async with echo_server(free_port) as server:
        call: Any = server.channel.unary_unary("/test.Echo/Unary")
        await call(b"x", metadata=(("traceparent", f"00-{TRACE}-{SPAN}-00"), ("x-request-id", "r-1")))
    (line,) = written.lines
    assert line.pop("ms") > 0
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "service": "test",
        "logger": "shop.rpc",
        "message": "test.Echo/Unary OK",
        "method": "test.Echo/Unary",
        "code": "OK",
        "trace_id": TRACE,
        "span_id": SPAN,
        "request_id": "r-1",
    }


async def test_each_call_of_a_flood_is_written_or_counted(free_port: int, written: WrittenLog) -> None:
    port, before = free_ports(1)[0], dict(SUPPRESSED)
    async with echo_server(free_port, METRICS_PORT=str(port)) as server:
        for _ in range(300):
            await server.unary(b"x")
        seen = await scrape(port)
    told = sum(line.get("suppressed", 0) for line in written.lines)
    summaries = [line for line in written.lines if line["message"].endswith(" more")]
    assert len(written.lines) - len(summaries) + told == 300
    assert len(written.lines) < 200
    assert seen.value("shop_log_suppressed_total", level="INFO") == before["INFO"] + told
    assert seen.values("shop_log_suppressed_total", level="WARNING") == [before["WARNING"]]


async def test_lines_of_successes_can_be_switched_off(free_port: int, written: WrittenLog) -> None:
    async with echo_server(free_port, LOG_CALLS_PER_SECOND="0") as server:
        await server.unary(b"x")
    assert not written.lines
