"""Channels between services: what is tried again, and what is not."""

from collections.abc import AsyncIterator

import grpc
import pytest

from runtime.client import RETRY, channel


@pytest.fixture
async def failing(free_port: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A service that answers only the last attempt which a retried call has; its address, and the attempts so far."""
    attempts: list[int] = []

    async def once_in_a_while(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        attempts.append(1)
        if len(attempts) < int(str(RETRY["maxAttempts"])):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(once_in_a_while)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Some", {"Call": handler}),))
    server.add_insecure_port(f"127.0.0.1:{free_port}")
    await server.start()
    yield f"dns:///127.0.0.1:{free_port}", attempts
    await server.stop(0)


async def test_a_call_that_may_be_made_twice_is_tried_again(failing: tuple[str, list[int]]) -> None:
    address, attempts = failing
    async with channel(address, idempotent=["test.Some"]) as to:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Call")
        assert await call(b"x", timeout=10) == b"x"
    assert len(attempts) == RETRY["maxAttempts"]


async def test_another_call_is_not(failing: tuple[str, list[int]]) -> None:
    address, attempts = failing
    async with channel(address, idempotent=["test.Other"]) as to:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary("/test.Some/Call")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"x", timeout=10)
    assert len(attempts) == 1
