"""Processes of a shop on loopback that can be killed, and started again, one by one."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.children import Child, start
from local.settings import LOOPBACK

Command = tuple[Sequence[str | Path], Mapping[str, str]]
"""A command line and its environment variables."""


class Fleet:
    """What benchmarks and fault tests have in common: parts by name, as in `order-1`, each a process with its log."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._stack = ExitStack()
        self.children: dict[str, Child] = {}

    @property
    def logs(self) -> Path:
        return self._state / "logs"

    def names(self, kind: str) -> list[str]:
        return [name for name in self.children if name.startswith(kind)]

    def command(self, name: str) -> Command:
        """How a part is started."""
        raise NotImplementedError

    def launch(self, name: str) -> None:
        """Starts a part, or starts it again."""
        if name not in self.children:
            self._stack.callback(self._end, name)
        command, environment = self.command(name)
        self.children[name] = start(name, command, self.logs, environment)

    def kill(self, name: str) -> None:
        """Ends a part as a crash would."""
        self.children[name].process.kill()
        self.children[name].process.wait()

    def check(self) -> None:
        """Raises ChildError if a part has ended."""
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        """Ends everything, the last started first."""
        self._stack.close()

    def _end(self, name: str) -> None:
        self.children[name].stop(timeout=10)

    def environment(self, **more: str) -> Mapping[str, str]:
        """What every process of ours is told, and `more`."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_HOST": LOOPBACK,
            "LOG_FORMAT": "text",
            "LOG_LEVEL": "WARNING",
            "SHUTDOWN_DELAY": "0",
            "SHUTDOWN_GRACE": "1",
            **more,
        }


async def until_serving(address: str, service: str) -> None:
    """Waits, for ever, until a service says that it serves."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)
