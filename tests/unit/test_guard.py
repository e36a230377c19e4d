"""The guard around every RPC handler."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from runtime.access.caller import NOBODY, Caller
from runtime.errors import not_found, unauthenticated
from runtime.guard import guard
from runtime.telemetry.calls import Calls


async def test_stream_is_closed_when_its_caller_leaves() -> None:
    """It frees what it holds at once, not at the next garbage collection."""
    closed = []

    async def admit(context: Any) -> Caller:
        return NOBODY

    async def follow(request: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(True)

    handler: Any = guard(grpc.unary_stream_rpc_method_handler(follow), admit, Calls().of("/a/b", streaming=True))
    responses = handler.unary_stream(b"", None)
    assert await anext(responses) == b"1"
    kept = responses.ag_frame  # keeps the frame alive, as a traceback would
    await responses.aclose()
    assert closed == [True]
    del kept


class AbortedError(Exception):
    """What `abort` raises."""


class Context:
    """The context of an RPC, as far as the guard uses it."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-request-id", "r-1"),)

    async def abort(self, code: grpc.StatusCode, text: str, trailers: object) -> None:
        raise AbortedError


@pytest.mark.parametrize(
    ("request_sent", "level", "code", "caller"),
    [
        (b"ada", logging.INFO, "OK", "hash of ada"),
        (b"ada missing", logging.INFO, "NOT_FOUND", "hash of ada"),
        (b"ada bug", logging.ERROR, "INTERNAL", "hash of ada"),
        (b"", logging.INFO, "UNAUTHENTICATED", None),
    ],
)
@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_each_call_is_a_line_with_its_caller(
    request_sent: bytes, level: int, code: str, caller: str | None, streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def admit(context: Any) -> Caller:
        if not request_sent:
            raise unauthenticated("TOKEN_REQUIRED", "a token is required")
        return Caller(subject="ada")

    async def unary(request: bytes, context: Any) -> bytes:
        if request.endswith(b"missing"):
            raise not_found("ORDER_NOT_FOUND", "order not found")
        if request.endswith(b"bug"):
            raise RuntimeError("bug")
        return request

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield await unary(request, context)

    caplog.set_level(logging.INFO)
    calls = Calls().of("/a/b", streaming=streaming, describe=lambda caller: f"hash of {caller.subject}")
    if streaming:
        streamed: Any = guard(grpc.unary_stream_rpc_method_handler(stream), admit, calls)
        with suppress(AbortedError):
            assert [response async for response in streamed.unary_stream(request_sent, Context())]
    else:
        handled: Any = guard(grpc.unary_unary_rpc_method_handler(unary), admit, calls)
        with suppress(AbortedError):
            assert await handled.unary_unary(request_sent, Context())
    (record,) = caplog.records
    fields = vars(record)
    assert (record.levelno, fields["method"], fields["code"], fields.get("caller")) == (level, "a/b", code, caller)
    assert fields["ms"] >= 0
    assert bool(record.exc_info) == (level == logging.ERROR)


async def test_stream_that_its_caller_leaves_is_a_line_with_its_duration(caplog: pytest.LogCaptureFixture) -> None:
    async def admit(context: Any) -> Caller:
        return NOBODY

    async def follow(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.sleep(60)

    caplog.set_level(logging.INFO)
    handler: Any = guard(grpc.unary_stream_rpc_method_handler(follow), admit, Calls().of("/a/b", streaming=True))
    responses = handler.unary_stream(b"", Context())
    await anext(responses)
    await asyncio.sleep(0.02)
    await responses.aclose()
    (record,) = caplog.records
    assert vars(record)["code"] == "CANCELLED"
    assert vars(record)["ms"] >= 20
