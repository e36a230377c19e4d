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
from local.secret_files import secret_folder
from local.settings import LOOPBACK

Command = tuple[Sequence[str | Path], Mapping[str, str]]
"""A command line and its environment variables."""


class Fleet:
    """Processes by name, as in `order-1`, each with a log. Benchmarks and fault tests share this."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._stack = ExitStack()
        self.children: dict[str, Child] = {}

    @property
    def logs(self) -> Path:
        """The folder with a log for each process."""
        return self._state / "logs"

    def names(self, kind: str) -> list[str]:
        """Returns the names of the processes that begin like this."""
        return [name for name in self.children if name.startswith(kind)]

    def command(self, name: str) -> Command:
        """Returns the command that starts a process."""
        raise NotImplementedError

    def launch(self, name: str) -> None:
        """Starts a process, or starts it again."""
        if name not in self.children:
            self._stack.callback(self._end, name)
        command, environment = self.command(name)
        self.children[name] = start(name, command, self.logs, environment)

    def kill(self, name: str) -> None:
        """Ends a process as a crash would."""
        self.children[name].process.kill()
        self.children[name].process.wait()

    def check(self) -> None:
        """Raises ChildError if a process has ended."""
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        """Ends all processes, in reverse order of their start."""
        self._stack.close()

    def _end(self, name: str) -> None:
        self.children[name].stop(timeout=10)

    def environment(self, **more: str) -> Mapping[str, str]:
        """Returns the environment variables of a process: those that all have, and `more`."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_HOST": LOOPBACK,
            "INTERNAL_CREDENTIALS": str(secret_folder(self._state / "credentials")),
            "TICKET_KEYS": str(secret_folder(self._state / "ticket-keys")),
            "LOG_FORMAT": "text",
            "LOG_LEVEL": "WARNING",
            "SHUTDOWN_DELAY": "0",
            "SHUTDOWN_GRACE": "1",
            **more,
        }


async def until_serving(address: str, service: str) -> None:
    """Waits until a service reports that it is serving. Has no time limit of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)
