"""The telemetry of a process as a whole."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from runtime import limited_log
from runtime.telemetry.calls import Calls
from runtime.telemetry.config import TelemetryConfig
from runtime.telemetry.event_loop import EventLoopLag
from runtime.telemetry.export import CLOSE_TIMEOUT, run_for
from runtime.telemetry.exposition import exposed
from runtime.telemetry.metrics import Metrics
from runtime.telemetry.system import measure_process
from runtime.telemetry.traces import Traces

DISTRIBUTION = "shopping-cart"

CLOSE_MARGIN = 0.5
"""Seconds for ending what is still being sent after CLOSE_TIMEOUT."""


class Telemetry:
    """The traces and metrics of one process."""

    def __init__(self, config: TelemetryConfig, service: str) -> None:
        """Starts to export what the configuration asks for.

        Args:
            config: What is exported, and where.
            service: The name of the process, if the configuration has none.
        """
        self._config = config
        resource = Resource.create(
            {SERVICE_NAME: config.service_name or service, SERVICE_VERSION: version(DISTRIBUTION)}
        )
        self.traces = Traces(config, resource)
        self.metrics = Metrics(config, resource)
        self.calls = Calls(self.metrics, config.log_calls_per_second)
        if self.metrics.enabled:
            measure_process(self.metrics)

    @asynccontextmanager
    async def serving(self, host: str) -> AsyncGenerator[None, None]:
        """Serves metrics to Prometheus, if the configuration has a port. On leaving it sends what remains.

        Raises:
            OSError: The port is taken.
        """
        async with AsyncExitStack() as stack:
            # In a thread: closing waits for the collector.
            stack.push_async_callback(asyncio.to_thread, self.close)
            if self.metrics.enabled:
                await stack.enter_async_context(EventLoopLag(self.metrics).measured())
            if self._config.metrics_port:
                await stack.enter_async_context(exposed(self.metrics.registry, host, self._config.metrics_port))
            yield

    def close(self) -> None:
        """Sends the remaining spans and metrics, for at most about CLOSE_TIMEOUT seconds."""
        limited_log.flush()
        run_for(CLOSE_TIMEOUT + CLOSE_MARGIN, self.traces.close, self.metrics.close)
