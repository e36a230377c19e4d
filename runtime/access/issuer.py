"""What a process knows of the issuer of tokens, kept up to date in the background."""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from runtime.access.config import TokenConfig
from runtime.access.key_set import KeySetError
from runtime.access.key_sources import DiscoverySource, FileSource, UrlSource, http_client
from runtime.access.keys import Keys
from runtime.config import ConfigError
from runtime.supervise import Job, supervised

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_keys(config: TokenConfig) -> AsyncGenerator[Keys, None]:
    """Keeps the keys of tokens up to date until the end of the block.

    A process starts without the issuer, and gets the keys once it can.

    Raises:
        ConfigError: The file of keys cannot be used.
    """
    async with AsyncExitStack() as stack:
        if config.jwks_file:
            keys = _from_file(config)
        else:
            variable, url = ("AUTH_JWKS_URL", config.jwks_url) if config.jwks_url else ("AUTH_ISSUER", config.issuer)
            if _is_exposed(url):
                log.warning("%s is not https: whoever is on the way to %s can make tokens of anybody", variable, url)
            http = await stack.enter_async_context(http_client())
            kind = UrlSource if config.jwks_url else DiscoverySource
            keys = Keys(kind(http, url, config.refresh_interval), config.algorithms)
        await stack.enter_async_context(supervised(Job("the keys of tokens", keys.run)))
        yield keys


def _from_file(config: TokenConfig) -> Keys:
    assert config.jwks_file is not None
    source = FileSource(config.jwks_file)
    keys = Keys(source, config.algorithms)
    try:
        keys.update(source.read())
    except KeySetError as error:
        raise ConfigError(f"AUTH_JWKS_FILE: cannot use {config.jwks_file}: {error}") from None
    return keys


def _is_exposed(url: str) -> bool:
    """Returns whether others can change what is fetched from a URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not is_loopback
