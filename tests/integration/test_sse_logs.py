"""Each stream is one line when it ends, with the ids of its request and its caller as a hash."""

from collections.abc import Iterator

import pytest

from sse.config import Timing
from sse.streams.connections import Connection
from tests.support.eventually import eventually
from tests.support.logs import WrittenLog, written_log
from tests.support.product import UNKNOWN
from tests.support.sidecar import EVENTS, sidecar, sidecar_before

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IDS = {"traceparent": f"00-{TRACE}-{SPAN}-00", "x-request-id": "r-1"}


@pytest.fixture
def written() -> Iterator[WrittenLog]:
    with written_log("shop.streams") as log:
        yield log


async def test_completed_stream_is_one_line_with_its_ids(written: WrittenLog) -> None:
    async with sidecar() as running:
        order_id = running.logs.place("PLACED", "CANCELLED")
        await running.http.get(f"/api/v1/orders/{order_id}/status/stream", headers=EVENTS | IDS)
    (line,) = written.lines
    assert line.pop("ms") > 0
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "service": "test",
        "logger": "shop.streams",
        "message": "event stream: completed",
        "result": "completed",
        "events": 2,
        "order_id": order_id,
        "trace_id": TRACE,
        "span_id": SPAN,
        "request_id": "r-1",
    }


async def test_stream_that_its_browser_leaves_is_one_line(written: WrittenLog) -> None:
    async with sidecar() as running:
        order_id = running.logs.place("PLACED")
        async with running.stream(order_id) as stream:
            await stream.next()

        async def ended() -> bool:
            return bool(written.lines)

        await eventually(ended)
    (line,) = written.lines
    assert (line["result"], line["events"], line["level"]) == ("client", 1, "INFO")


async def test_refused_stream_is_one_line_with_its_error(written: WrittenLog) -> None:
    async with sidecar() as running:
        await running.http.get(f"/api/v1/orders/{UNKNOWN}/status/stream", headers=EVENTS)
        await running.http.get("/api/v1/orders/nonsense/status/stream", headers=EVENTS)
    not_found, malformed = written.lines
    assert (not_found["result"], not_found["error"]) == ("NOT_FOUND", f"order {UNKNOWN} not found")
    assert (malformed["result"], malformed["level"]) == ("INVALID_ARGUMENT", "INFO")
    assert "order_id" not in malformed


async def test_stream_without_the_order_service_is_a_warning(written: WrittenLog) -> None:
    async with sidecar_before("ipv4:127.0.0.1:1", timing=Timing(log_timeout=0.1)) as (_, http):
        await http.get(f"/api/v1/orders/{UNKNOWN}/status/stream")
    (line,) = written.lines
    assert (line["result"], line["level"]) == ("UNAVAILABLE", "WARNING")


async def test_tracebacks_of_streams_are_limited(
    written: WrittenLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(_: Connection) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(Connection, "wait", wait)
    async with sidecar() as running:
        order_id = running.logs.place("PLACED")
        for _ in range(8):
            await running.http.get(f"/api/v1/orders/{order_id}/status/stream")
    assert [line["result"] for line in written.lines] == ["INTERNAL"] * 8
    assert 2 <= sum(bool(record.exc_info) for record in caplog.records) < 8
