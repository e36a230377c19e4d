"""What a server sends to a collector over OTLP."""

import pytest

from tests.support.echo_server import echo_server
from tests.support.eventually import eventually
from tests.support.otlp import otlp_receiver

DURATION = "rpc.server.call.duration"


async def test_calls_are_measured_over_otlp(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with otlp_receiver() as receiver:
        variables = {**receiver.variables(), "OTEL_TRACES_EXPORTER": "none"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)  # the exporters read them by themselves
        async with echo_server(free_port, **variables) as server:
            await server.unary(b"x")
            await server.unary(b"x")
            labels = {"rpc.method": "test.Echo/Unary", "rpc.response.status_code": "OK"}
            await eventually(lambda: receiver.value("test", DURATION, labels) == 2)
            assert receiver.values("test", DURATION, {"rpc.method": "another"}) == []
