"""Where an HTTP server of aiohttp listens."""

import socket

from aiohttp import web


async def listen(runner: web.AppRunner, host: str, port: int, backlog: int = 128) -> None:
    """Starts a server.

    Args:
        runner: The server.
        host: The address to listen on. `::` includes IPv4, if the machine has both.
        port: The port; 0 leaves the choice to the system.
        backlog: Connections that may wait to be accepted.

    Raises:
        OSError: The port is taken. The message is one line for people.
    """
    await runner.setup()
    try:
        if host == "::" and socket.has_dualstack_ipv6():
            # asyncio would make a socket for IPv6 alone.
            both = socket.create_server((host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
            await web.SockSite(runner, both, backlog=backlog).start()
        else:
            await web.TCPSite(runner, host, port, backlog=backlog).start()
    except OSError:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(f"cannot listen on {address}: is the port taken?") from None
