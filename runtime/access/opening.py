"""A process's gate, with what it needs in the background."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from runtime.access.config import AccessConfig
from runtime.access.credential import Credential
from runtime.access.gate import Gate

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gate(config: AccessConfig, credential: Credential) -> AsyncGenerator[Gate, None]:
    """Opens the gate of a process. Until the end of the block, the keys of tokens are kept up to date.

    Raises:
        ConfigError: The file of keys cannot be used.
    """
    tokens = config.tokens
    if tokens is None:
        log.warning("no caller is authenticated: everybody may call every method that is not internal (AUTH_MODE=none)")
        yield Gate(config, credential, None)
        return
    # Imported here, since it takes a fifth of a process's memory.
    from runtime.access.issuer import open_keys
    from runtime.access.tokens import Tokens

    async with open_keys(tokens) as keys:
        log.info("callers need tokens of %s for %s", tokens.issuer, " or ".join(tokens.audiences))
        yield Gate(config, credential, Tokens(tokens, keys), keys)
