"""Whether there are other replicas of this service, according to DNS."""

import asyncio
import logging
import socket

log = logging.getLogger(__name__)

DNS_TIMEOUT = 3.0
"""Seconds that both DNS queries together may take."""


async def has_peers(name: str) -> bool:
    """Returns whether a name has addresses other than those of this process.

    Args:
        name: The name of a headless Service. If it is empty or cannot be resolved, the result is False.
    """
    if not name:
        return False
    try:
        async with asyncio.timeout(DNS_TIMEOUT):
            found, own = await _addresses(name), await _addresses(socket.gethostname())
    except (OSError, TimeoutError) as error:
        log.info("cannot look up other replicas: %s", error or "DNS timeout")
        return False
    return bool(found - own)


async def _addresses(name: str) -> set[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return {str(each[4][0]) for each in found}
