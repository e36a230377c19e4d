"""Calls of the product service: with the shop's own credential, within a time limit, measured, and traced."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from google.protobuf import message
from shop.product.v1 import stock_pb2

from order.stock import CALL_TIMEOUT
from runtime.access.credential import Credential
from runtime.telemetry.calls import DEADLINE_MARGIN
from runtime.telemetry.durations import call_durations
from runtime.telemetry.metrics import Metrics
from runtime.telemetry.spans import client_span, end_client_span
from runtime.telemetry.trace_context import outgoing

R = TypeVar("R")

_SERVICE = stock_pb2.DESCRIPTOR.services_by_name["StockService"]

_METHODS = {each.input_type.full_name: f"{_SERVICE.full_name}/{each.name}" for each in _SERVICE.methods}
"""The full name of each method, by the type of its requests."""


class ProductCalls:
    """Makes the calls."""

    def __init__(self, credential: Credential, metrics: Metrics | None = None) -> None:
        """Initializes the calls.

        Args:
            credential: What the product service knows this process by.
            metrics: Takes the measurements; None: there are none.
        """
        self._credential = credential
        self._durations = call_durations(metrics, "rpc.client.call.duration", "Duration of the RPCs to other services.")

    async def __call__(
        self, method: Callable[..., Awaitable[R]], request: message.Message, timeout: float = CALL_TIMEOUT
    ) -> R:
        """Returns the response to a request.

        Args:
            method: The method of the stub.
            request: What it is called with.
            timeout: The time limit in seconds.

        Raises:
            grpc.aio.AioRpcError: The call failed.
        """
        start = time.perf_counter()
        name = _METHODS[request.DESCRIPTOR.full_name]
        code = "OK"
        with client_span(name) as span:
            try:
                return await method(request, timeout=timeout, metadata=(*self._credential.metadata(), *outgoing()))
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                raise
            except asyncio.CancelledError:
                is_late = time.perf_counter() - start > timeout - DEADLINE_MARGIN
                code = "DEADLINE_EXCEEDED" if is_late else "CANCELLED"
                raise
            finally:
                self._durations.of(name, code).record(time.perf_counter() - start)
                end_client_span(span, code)
