"""The guard around every RPC handler."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from runtime.access.caller import NOBODY, Caller
from runtime.guard import guard


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

    handler: Any = guard("/shop.order.v1.OrderService/Stream", grpc.unary_stream_rpc_method_handler(follow), admit)
    responses = handler.unary_stream(b"", None)
    assert await anext(responses) == b"1"
    kept = responses.ag_frame  # keeps the frame alive, as a traceback would
    await responses.aclose()
    assert closed == [True]
    del kept
