"""A DNS server whose answers a test changes, as those of a headless Service change."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

A, IN = 1, 1
"""The type of a query for IPv4 addresses, and the class of the internet."""

TTL = 30
"""Seconds for which an answer may be kept. gRPC keeps none."""


@dataclass
class Dns(asyncio.DatagramProtocol):
    """Answers queries for any name."""

    addresses: list[str] = field(default_factory=list)
    """The IPv4 addresses that each name has now."""
    port: int = 0
    """On loopback."""
    queries: int = 0
    """Queries for IPv4 addresses so far."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(0, 12) + 5  # of the question: a name, a type and a class
        kind = struct.unpack_from("!H", data, end - 4)[0]
        addresses = self.addresses if kind == A else []
        self.queries += kind == A
        header = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        records = b"".join(
            struct.pack("!HHHIH4B", 0xC00C, A, IN, TTL, 4, *map(int, address.split("."))) for address in addresses
        )
        self._transport.sendto(header + data[12:end] + records, addr)


@asynccontextmanager
async def dns(*addresses: str) -> AsyncIterator[Dns]:
    """Runs the server until the end of the block."""
    server = Dns(list(addresses))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
