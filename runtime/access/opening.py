"""A process's gate, with what it needs in the background."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from runtime.access.config import AccessConfig
from runtime.access.credential import Credential
from runtime.access.gate import Gate
from runtime.config import ConfigError


@asynccontextmanager
async def open_gate(config: AccessConfig, credential: Credential) -> AsyncGenerator[Gate, None]:
    """Opens the gate of a process. Until the end of the block, the keys of tokens are kept up to date.

    Raises:
        ConfigError: The keys cannot be read.
    """
    if config.tokens is None:
        yield Gate(config, credential, None)
        return
    raise ConfigError("AUTH_MODE=jwt does not work yet")
