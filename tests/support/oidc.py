"""A small OpenID provider in the process of the test: it publishes keys, makes tokens, rotates, and goes away.

It runs in a thread with its own event loop, so tests that are not asynchronous can use it as well:

    with oidc_provider() as provider:
        start_the_shop(**provider.variables())
        call(authorization=f"Bearer {provider.token('ada', staff=True)}")
"""

import asyncio
import hashlib
import hmac
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, get_default_algorithms

from local.settings import free_ports

AUDIENCE = "shop"
"""The `aud` of tokens, unless a test says otherwise."""

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"

_CURVES: Mapping[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


@dataclass(frozen=True)
class SigningKey:
    """A key pair of the provider."""

    algorithm: str
    private: Any
    kid: str | None

    def public_pem(self) -> bytes:
        return bytes(self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def jwk(self) -> dict[str, Any]:
        """The public key, as the provider publishes it."""
        made: Any = _algorithm(self.algorithm)
        jwk: dict[str, Any] = made.to_jwk(self.private.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return jwk | {"use": "sig", "alg": self.algorithm} | ({} if self.kid is None else {"kid": self.kid})

    def sign(self, message: bytes) -> bytes:
        return _algorithm(self.algorithm).sign(message, self.private)


def new_key(algorithm: str = "ES256", *, kid: str | None = "", bits: int = 2048) -> SigningKey:
    """Makes a key pair. Its `kid` is random by default; None: it has none."""
    if algorithm == "EdDSA":
        private: Any = ed25519.Ed25519PrivateKey.generate()
    elif algorithm in _CURVES:
        private = ec.generate_private_key(_CURVES[algorithm]())
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return SigningKey(algorithm, private, f"key-{uuid4()}" if kid == "" else kid)


def encode(header: Mapping[str, Any], claims: object, sign: Callable[[bytes], bytes]) -> str:
    """Makes a token of any header and claims, also of ones that no honest issuer makes."""
    message = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    return (message + b"." + _base64(sign(message))).decode()


@dataclass
class Issuer:
    """Keys, and the tokens that they sign."""

    url: str
    """The `iss` of its tokens."""
    audience: str = AUDIENCE
    keys: list[SigningKey] = field(default_factory=lambda: [new_key()])
    """All keys that it publishes. The last one signs."""

    def token(
        self,
        subject: str = "ada",
        *,
        staff: bool = False,
        ttl: float = 3600,
        key: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """Makes a token.

        Args:
            subject: Its `sub`.
            staff: Whether its scope has `shop:staff`.
            ttl: Seconds until it expires; below 0 if it has expired.
            key: Signs it. By default, the newest key.
            header: More of its header; a value None removes one.
            without: Names of claims that it lacks.
            claims: More claims, or other values for those above.
        """
        key = key or self.keys[-1]
        fields: dict[str, Any] = {"typ": "JWT", "alg": key.algorithm, "kid": key.kid, **(header or {})}
        return encode(
            {name: value for name, value in fields.items() if value is not None},
            self.claims(subject, staff=staff, ttl=ttl, without=without, **claims),
            key.sign,
        )

    def claims(
        self,
        subject: str = "ada",
        *,
        staff: bool = False,
        ttl: float = 3600,
        without: tuple[str, ...] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """The claims of a token."""
        now = int(time.time())
        issued = min(now, now + int(ttl)) - 1
        scope = "openid shop:staff" if staff else "openid"
        claims = {"iss": self.url, "aud": self.audience, "sub": subject, "iat": issued, "exp": now + int(ttl)}
        return {name: value for name, value in ({**claims, "scope": scope} | more).items() if name not in without}

    def unsigned_token(self, subject: str = "ada", **claims: Any) -> str:
        """A token whose algorithm is `none`."""
        header = {"typ": "JWT", "alg": "none", "kid": self.keys[-1].kid}
        return encode(header, self.claims(subject, **claims), lambda _: b"")

    def confused_token(self, subject: str = "ada", **claims: Any) -> str:
        """A token of HS256, whose secret is the public key that everybody knows."""
        key = self.keys[-1]
        header = {"typ": "JWT", "alg": "HS256", "kid": key.kid}
        secret = key.public_pem()
        return encode(
            header, self.claims(subject, **claims), lambda message: hmac.digest(secret, message, hashlib.sha256)
        )

    def foreign_token(self, subject: str = "ada", **claims: Any) -> str:
        """A token that names the provider's key, and is signed with another one."""
        key = self.keys[-1]
        return self.token(subject, key=SigningKey(key.algorithm, foreign_key(key.algorithm).private, key.kid), **claims)

    def rotate(self, *, keep: bool = True, algorithm: str = "") -> SigningKey:
        """Makes a new key, which signs from now on.

        Args:
            keep: Whether the older keys are still published.
            algorithm: The algorithm of the new key; by default that of the present one.
        """
        key = new_key(algorithm or self.keys[-1].algorithm)
        self.keys = [*self.keys, key] if keep else [key]
        return key

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JSON Web Key Set."""
        return {"keys": [key.jwk() for key in self.keys]}

    def in_file(self, file: Path) -> dict[str, str]:
        """Writes the keys to a file. Returns the variables of a process that accepts the tokens by this file alone."""
        file.write_text(json.dumps(self.jwks()))
        variables = {"AUTH_MODE": "jwt", "AUTH_ISSUER": self.url, "AUTH_AUDIENCE": self.audience}
        return {**variables, "AUTH_JWKS_FILE": str(file)}


class Provider(Issuer):
    """An issuer with an HTTP server."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop, algorithm: str) -> None:
        super().__init__(f"http://127.0.0.1:{port}", keys=[new_key(algorithm)])
        self.fetches: Counter[str] = Counter()
        """How often each path was fetched."""
        self.responses: dict[str, Callable[[], web.Response]] = {}
        """What to respond to a path with, in place of what is right."""
        self.gate = threading.Event()
        """Responses wait until it is set: to clear it makes the provider hang."""
        self.gate.set()
        self._port = port
        self._loop = loop
        self._runner: web.AppRunner | None = None

    @property
    def jwks_url(self) -> str:
        return self.url + JWKS

    def variables(self, **more: str) -> dict[str, str]:
        """The environment variables of a process that accepts the provider's tokens, found by discovery."""
        algorithms = "RS256,ES256,EdDSA"
        access = {"AUTH_MODE": "jwt", "AUTH_ISSUER": self.url, "AUTH_AUDIENCE": AUDIENCE}
        return access | {"AUTH_ALGORITHMS": algorithms} | more

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        return {"issuer": self.url, "jwks_uri": self.jwks_url}

    def go_away(self) -> None:
        """Stops listening: connections are refused."""
        self._run(self._stop())

    def come_back(self) -> None:
        """Listens again, on the same port."""
        self._run(self._start())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _respond(self, request: web.Request) -> web.Response:
        path = request.path
        self.fetches[path] += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        if path in self.responses:
            return self.responses[path]()
        documents = {DISCOVERY: self.discovery, JWKS: self.jwks}
        return web.json_response(documents[path]()) if path in documents else web.Response(status=404)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@contextmanager
def oidc_provider(algorithm: str = "ES256") -> Iterator[Provider]:
    """Runs a provider on a free port until the end of the block."""
    (port,) = free_ports(1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    provider = Provider(port, loop, algorithm)
    try:
        provider.come_back()
        yield provider
    finally:
        provider.gate.set()
        provider.go_away()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@cache
def foreign_key(algorithm: str) -> SigningKey:
    """A key that no provider publishes."""
    return new_key(algorithm)


def _algorithm(name: str) -> Algorithm:
    return get_default_algorithms()[name]


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
