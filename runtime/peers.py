"""Whether there are other replicas of this service, as DNS has them."""

import asyncio
import logging
import socket

log = logging.getLogger(__name__)

DEADLINE = 3.0
"""Seconds that DNS has to say so."""


async def has_peers(name: str) -> bool:
    """Whether a headless Service's name has addresses that are not this process's own. No name and no answer: False."""
    if not name:
        return False
    try:
        async with asyncio.timeout(DEADLINE):
            found, own = await _addresses(name), await _addresses(socket.gethostname())
    except (OSError, TimeoutError) as error:
        log.info("no other replicas are known: %s", error or "DNS does not answer")
        return False
    return bool(found - own)


async def _addresses(name: str) -> set[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return {str(each[4][0]) for each in found}
