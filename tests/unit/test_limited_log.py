"""A flood of calls leaves a few lines in the log, and the number of the others."""

import asyncio
import logging
import time

import pytest

from runtime import limited_log
from runtime.access.caller import Caller
from runtime.limited_log import LimitedLine, LimitedLines
from runtime.logs import CALL, JsonFormatter
from runtime.telemetry.calls import Calls, MethodCalls
from tests.support.eventually import eventually

METHOD = "/shop.order.v1.OrderService/GetOrder"
RPC = "shop.rpc"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    limited_log.flush()
    monkeypatch.setattr(limited_log, "SUMMARY_INTERVAL", 0.05)


@pytest.fixture
def one() -> LimitedLine:
    """A kind of line: one each second, and two at once."""
    return LimitedLine(logging.getLogger("test.limited"), logging.WARNING, "hello", rate=1)


def suppressed(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [vars(record).get("suppressed", 0) for record in caplog.records]


async def summary(caplog: pytest.LogCaptureFixture) -> None:
    """Waits for a line that tells what was left out."""

    async def told() -> bool:
        return bool(caplog.records) and caplog.records[-1].getMessage().endswith(" more")

    await eventually(told)


def call(method: MethodCalls, code: str, times: int = 1, error: str = "") -> None:
    for _ in range(times):
        method.finished(code, method.started(), error=error)


async def test_burst_is_written_and_then_the_rate(one: LimitedLine) -> None:
    assert [one.admit(100.0) for _ in range(4)] == [True, True, False, False]
    assert [one.admit(now) for now in (100.9, 101.1, 101.2, 102.1)] == [False, True, False, True]
    assert [one.admit(1000.0) for _ in range(3)] == [True, True, False], "a quiet time gives no more than a burst"


async def test_next_line_says_how_many_were_left_out(one: LimitedLine, caplog: pytest.LogCaptureFixture) -> None:
    before = limited_log.SUPPRESSED["WARNING"]
    for _ in range(5):
        if one.admit(100.0):
            one.write({})
    for _ in range(2):
        assert one.admit(200.0)
        one.write({"ms": 1})
    assert suppressed(caplog) == [0, 0, 3, 0]
    assert limited_log.SUPPRESSED["WARNING"] == before + 3


async def test_end_of_a_flood_is_told_within_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    calls = Calls()
    call(calls.of(METHOD, streaming=False), "OK", 1000)
    before = len(caplog.records)
    await summary(caplog)
    assert before < 100, "most of the calls are not written"
    assert len(caplog.records) == before + 1
    last = vars(caplog.records[-1])
    assert last["suppressed"] == 1000 - before
    assert caplog.records[-1].getMessage() == f"{METHOD[1:]} OK: {1000 - before} more"
    assert (last["method"], last["code"]) == (METHOD[1:], "OK")


async def test_summary_comes_only_when_the_flood_is_over(
    one: LimitedLine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    for _ in range(10):
        one.admit(now)
    await asyncio.sleep(0.3)
    assert not caplog.records, "the next line is due in less than a second, and will tell it"
    now = 102.0
    await summary(caplog)
    assert [record.getMessage() for record in caplog.records] == ["hello: 8 more"]


async def test_summary_has_no_ids_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """It is about many calls, and must not seem to be about the one that was left out first."""

    class Call:
        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return (("x-request-id", "r-1"),)

    lines: list[str] = []
    formatter = JsonFormatter("order")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(formatter.format(record))  # type: ignore[method-assign]  # a stub
    logging.getLogger(RPC).addHandler(handler)
    caplog.set_level(logging.INFO)
    token = CALL.set(Call())
    try:
        call(Calls().of(METHOD, streaming=False), "OK", 50)
        await summary(caplog)
    finally:
        CALL.reset(token)
        logging.getLogger(RPC).removeHandler(handler)
    assert "r-1" in lines[0]
    assert " more" in lines[-1]
    assert "r-1" not in lines[-1]


async def test_successes_do_not_hide_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    method = Calls().of(METHOD, streaming=False)
    call(method, "OK", 100)
    call(method, "UNAVAILABLE", error="the database is unavailable")
    call(method, "NOT_FOUND", error="order not found")
    unavailable, not_found = caplog.records[-2:]
    assert (unavailable.levelname, vars(unavailable)["error"]) == ("WARNING", "the database is unavailable")
    assert (not_found.levelname, vars(not_found)["error"]) == ("INFO", "order not found")


async def test_tracebacks_are_limited_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    method = Calls().of(METHOD, streaming=False)
    for _ in range(10):
        method.failed(RuntimeError("bug"), method.started(), Caller(subject="ada"))
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    limited_log.flush()
    assert caplog.records[-1].getMessage() == f"{METHOD[1:]} failed: 8 more"


async def test_flush_tells_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    call(Calls().of(METHOD, streaming=False), "OK", 25)
    limited_log.flush()
    assert suppressed(caplog)[-1] == 5


async def test_no_lines_of_successes_if_so_configured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, RPC)
    method = Calls(successes_per_second=0).of(METHOD, streaming=False)
    call(method, "OK")
    assert not caplog.records
    call(method, "NOT_FOUND")
    assert len(caplog.records) == 1


async def test_health_checks_are_logged_only_if_they_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    method = Calls().of("/grpc.health.v1.Health/Check", streaming=False)
    call(method, "OK")
    assert not caplog.records
    call(method, "UNAVAILABLE")
    assert len(caplog.records) == 1


async def test_lines_below_the_level_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    """They were not left out because of a flood."""
    caplog.set_level(logging.ERROR)
    before = limited_log.SUPPRESSED.total()
    call(Calls().of(METHOD, streaming=False), "OK", 100)
    limited_log.flush()
    assert not caplog.records
    assert limited_log.SUPPRESSED.total() == before


async def test_messages_are_limited_each_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Many failures of one statement must not hide those of another."""
    log = LimitedLines(logging.getLogger("test.limited"), logging.WARNING, rate=1)
    for number in range(5):
        log("order.insert: timeout", {"number": number})
    log("order.list: timeout", error=RuntimeError("bug"))
    assert [record.getMessage() for record in caplog.records] == ["order.insert: timeout"] * 2 + ["order.list: timeout"]
    assert vars(caplog.records[1])["number"] == 1
    assert caplog.records[2].exc_info
