"""Where the keys of tokens come from: a file, a URL, or the discovery document of an OpenID provider."""

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from runtime.access.key_set import KeySetError, is_object

FILE_INTERVAL = 1.0
"""Seconds between two reads of a file of keys."""

FILE_MIN_INTERVAL = 0.1
"""Seconds between two reads of a file of keys while tokens name a key that is not known."""

FETCH_MIN_INTERVAL = 2.0
"""Seconds between two fetches while tokens name a key that is not known. Anybody can send such tokens."""

MAX_DOCUMENT = 1024 * 1024
"""The largest document that is read, in bytes."""

MAX_REDIRECTS = 3
"""How many redirects a fetch follows."""

DISCOVERY = "/.well-known/openid-configuration"
"""The path of an issuer's discovery document (OpenID Connect Discovery 1.0, 4)."""

_REDIRECTS = (301, 302, 303, 307, 308)


class FileSource:
    """A file of keys. It is read again and again, so it does not matter how it is replaced."""

    interval = FILE_INTERVAL
    min_interval = FILE_MIN_INTERVAL

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    async def load(self) -> bytes:
        """Returns what the file has. Raises KeySetError if it cannot be read."""
        return self.read()

    def read(self) -> bytes:
        """Returns what the file has. Raises KeySetError if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise KeySetError(error.strerror or type(error).__name__) from None
        if len(text) > MAX_DOCUMENT:
            raise KeySetError(f"it is larger than {MAX_DOCUMENT:,} bytes")
        return text


class UrlSource:
    """A key set at a URL."""

    min_interval = FETCH_MIN_INTERVAL

    def __init__(self, http: aiohttp.ClientSession, url: str, interval: float) -> None:
        """Prepares the fetches; `interval` is in seconds."""
        self.name = url
        self.interval = interval
        self._http = http

    async def load(self) -> bytes:
        """Returns what is at the URL. Raises KeySetError if it cannot be fetched."""
        return await _fetch(self._http, self.name)


class DiscoverySource:
    """The key set that an issuer's discovery document names."""

    min_interval = FETCH_MIN_INTERVAL

    def __init__(self, http: aiohttp.ClientSession, issuer: str, interval: float) -> None:
        """Prepares the fetches; `interval` is in seconds."""
        self.name = issuer.rstrip("/") + DISCOVERY
        self.interval = interval
        self._http = http
        self._issuer = issuer

    async def load(self) -> bytes:
        """Returns the key set. Raises KeySetError if it cannot be fetched."""
        return await _fetch(self._http, self._jwks_url(await _fetch(self._http, self.name)))

    def _jwks_url(self, text: bytes) -> str:
        try:
            document: object = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not is_object(document):
            raise KeySetError("the discovery document is no JSON object")
        if document.get("issuer") != self._issuer:
            raise KeySetError("the discovery document is of another issuer: compare its `issuer` with AUTH_ISSUER")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not _may_follow(self.name, url):
            raise KeySetError("the discovery document has no jwks_uri that can be used")
        return url


def http_client() -> aiohttp.ClientSession:
    """Returns the client that fetches keys. It uses the proxy that HTTPS_PROXY names."""
    return aiohttp.ClientSession(
        trust_env=True,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json", "User-Agent": "shop"},
    )


async def _fetch(http: aiohttp.ClientSession, address: str) -> bytes:
    """Returns the document at a URL. Raises KeySetError if it cannot be fetched."""
    url = address
    try:
        for _ in range(MAX_REDIRECTS + 1):
            async with http.get(url, allow_redirects=False) as response:
                if response.status == 200:
                    return await _read(response)
                if response.status not in _REDIRECTS:
                    raise KeySetError(f"the response has the status {response.status}")
                target = str(response.url.join(URL(response.headers.get("Location", ""))))
                if not _may_follow(url, target):
                    raise KeySetError("it redirects to an address that is not https")
                url = target
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise KeySetError(_reason(error)) from None
    raise KeySetError(f"it redirects more than {MAX_REDIRECTS} times")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    text = bytearray()
    async for part in response.content.iter_chunked(64 * 1024):
        text += part
        if len(text) > MAX_DOCUMENT:
            raise KeySetError(f"it is larger than {MAX_DOCUMENT:,} bytes")
    return bytes(text)


def _may_follow(origin: str, target: str) -> bool:
    """Returns whether one URL may lead to another: never from https to http."""
    try:
        schemes = urlsplit(origin).scheme, urlsplit(target).scheme
    except ValueError:
        return False
    return schemes[1] == "https" or schemes == ("http", "http")


def _reason(error: Exception) -> str:
    """Returns why a fetch failed. It has no URL in it: that of a proxy may have a password."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"its certificate is not accepted: {getattr(cause, 'verify_message', '') or type(cause).__name__}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        # Event loops word the same error in different ways. The numbers of a name that is not found are not errno's.
        if cause.errno and not isinstance(cause, socket.gaierror):
            return os.strerror(cause.errno)
        return cause.strerror or str(cause)
    return type(error).__name__
