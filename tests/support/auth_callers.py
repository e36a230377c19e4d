"""What callers send to show who they are, and what they send in the hope that it helps."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from tests.support.auth_doors import Headers
from tests.support.auth_matrix import Identity
from tests.support.oidc import Provider, new_key

Tokens = Callable[[Identity], str | None]
"""Returns the token of an identity, which may be a bad one; None if this shop has none for it."""


@dataclass(frozen=True)
class Keys:
    """What a shop keeps to itself, where a test can have it. Without it, the cells that need it are left out."""

    credential: str = ""
    tickets: str = ""
    """Signs tickets."""

    def ticket(self, kind: str, order_id: str, ttl: float) -> str:
        """Makes a ticket as the shop makes it (RFC 7519)."""
        claims = {"aud": kind, "sub": order_id, "exp": int(time.time() + ttl)}
        head, body = (_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
        return f"{head}.{body}.{_base64(hmac.digest(self.tickets.encode(), f'{head}.{body}'.encode(), sha256))}"


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)


def forged(ticket: str) -> str:
    """Returns a ticket whose signature is another one."""
    head, _, signature = ticket.rpartition(".")
    return f"{head}.{signature[::-1]}"


def smuggled(credential: str) -> Headers:
    """Returns headers that no client should have an effect with. The credential is the right one."""
    claims = json.dumps({"iss": "https://issuer", "sub": "grace", "scope": "shop:staff", "aud": "shop"}).encode()
    payload = _base64(claims)
    names = ("x-jwt-payload", "x-jwt-claims", "x-shop-claims", "x-shop-payload", "x-endpoint-api-userinfo")
    subjects = (
        *("x-shop-caller", "x-shop-subject", "x-shop-sub", "x-jwt-claim-sub", "x-forwarded-user", "x-forwarded-email"),
        *("x-user-id", "x-authenticated-user", "remote-user", "x-goog-authenticated-user-id"),
    )
    return (
        *((name, payload) for name in names),
        *((name, "grace") for name in subjects),
        ("x-shop-credential", credential or "0123456789abcdef" * 4),
        ("x-envoy-internal", "true"),
        ("x-envoy-external-address", "127.0.0.1"),
        ("x-envoy-original-path", "/api/v1/products"),
        ("x-envoy-original-method", "GET"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-decorator-operation", "health"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-client-cert", "By=spiffe://shop/ns/shop/sa/order;URI=spiffe://shop/ns/shop/sa/order"),
        ("forwarded", "for=127.0.0.1;proto=https"),
        ("x-real-ip", "127.0.0.1"),
        ("x-original-url", "/api/v1/products"),
        ("x-rewrite-url", "/api/v1/products"),
        ("x-http-method-override", "GET"),
        ("x-auth-request-access-token", "x"),
        ("cookie", "access_token=x; token=x"),
    )


def token_of(provider: Provider, identity: Identity) -> str | None:
    """Returns a token. The bad ones are staff's, and would open everything."""
    match identity:
        case Identity.OWNER:
            return provider.token("ada")
        case Identity.ANOTHER_CUSTOMER:
            return provider.token("bob")
        case Identity.STAFF:
            return provider.token("grace", staff=True)
        case Identity.MALFORMED:
            return "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJncmFjZSJ9"
        case Identity.EXPIRED:
            return provider.token("grace", staff=True, ttl=-600)
        case Identity.NOT_YET_VALID:
            return provider.token("grace", staff=True, nbf=provider.claims()["iat"] + 600)
        case Identity.WRONG_AUDIENCE:
            return provider.token("grace", staff=True, aud="another-shop")
        case Identity.WRONG_ISSUER:
            return provider.token("grace", staff=True, iss="https://issuer.example")
        case Identity.WRONG_KEY:
            return provider.foreign_token("grace", staff=True)
        case Identity.UNKNOWN_KEY:
            return provider.token("grace", staff=True, key=new_key())
        case Identity.ALG_NONE:
            return provider.unsigned_token("grace", staff=True)
        case Identity.ALG_HS256:
            return provider.confused_token("grace", staff=True)
        case _:
            return None
