"""Verifies bearer tokens: JSON Web Tokens (RFC 7519) that an OpenID provider has signed."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jwt
from jwt.exceptions import InvalidSubjectError

from runtime.access.caller import Caller
from runtime.access.config import TokenConfig
from runtime.access.key_set import Key, is_list, is_object
from runtime.access.keys import MAX_WAITING, Keys
from runtime.errors import TOKEN_EXPIRED, TOKEN_INVALID, ApiError, unauthenticated

MAX_TOKEN_LENGTH = 16 * 1024
"""The longest token that is read, in bytes."""

MAX_SUBJECT_LENGTH = 255
"""The longest `sub`, in characters (OpenID Connect Core 1.0, 2)."""

MAX_KID_LENGTH = 255
"""The longest name of a key, in characters. Names of keys that the issuer lacks are remembered, too."""

MAX_REMEMBERED = 10_000
"""How many verified tokens are remembered."""

MAX_REMEMBERED_BYTES = 32 * 1024 * 1024
"""The length of all verified tokens that are remembered together."""

MAX_REMEMBERED_TIME = 86_400.0
"""Seconds for which a verified token is remembered at the most."""

_OPTIONS: Mapping[str, Any] = {
    "require": ["iss", "aud", "sub", "exp"],
    **{f"verify_{claim}": True for claim in ("iss", "aud", "sub", "exp", "nbf", "iat")},
}
"""What PyJWT checks, also if it does not verify the signature."""

_TIMES = ("exp", "nbf", "iat")

_PROBLEMS: Mapping[type[Exception], str] = {
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token has the wrong audience (aud)",
    jwt.InvalidIssuerError: "the token has the wrong issuer (iss)",
    InvalidSubjectError: "the token has no usable subject (sub)",
    jwt.InvalidAlgorithmError: "the token has an algorithm (alg) that is not allowed",
}
"""What is wrong with a token, by PyJWT's errors. Their own texts may quote the token."""


class _Verified(NamedTuple):
    caller: Caller
    until: float
    """The time at which it expires, as by time.time()."""
    key: Key


class Tokens:
    """Verifies tokens, and remembers those that it has verified."""

    def __init__(self, config: TokenConfig, keys: Keys) -> None:
        """Prepares the verification.

        Args:
            config: Which tokens are accepted.
            keys: The keys of their issuer.
        """
        self._config = config
        self._keys = keys
        self._remembered: dict[str, _Verified] = {}
        self._remembered_bytes = 0

    async def verify(self, token: str, max_waiting: int | None = None) -> Caller:
        """Returns whom a token stands for. See `Verifier.verify`.

        Raises:
            ApiError: UNAUTHENTICATED if the token is not accepted, UNAVAILABLE if the keys for it cannot be had now.
        """
        verified = self._remembered.get(token)
        if verified is not None and verified.key.in_use and time.time() < verified.until:
            return verified.caller
        return await self._verify(token, MAX_WAITING if max_waiting is None else max_waiting)

    async def _verify(self, token: str, max_waiting: int) -> Caller:
        if len(token) > MAX_TOKEN_LENGTH:
            raise _invalid(f"the token is longer than {MAX_TOKEN_LENGTH:,} bytes")
        # What is certainly bad needs no key, and nobody should wait for one.
        header, _ = self._decode(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._config.algorithms:
            raise _invalid(_PROBLEMS[jwt.InvalidAlgorithmError])
        if kid is not None and len(kid) > MAX_KID_LENGTH:
            raise _invalid("the token has a key id (kid) that is too long")

        def verified_claims(key: Key) -> dict[str, Any] | None:
            try:
                return self._decode(token, key, algorithm)[1]
            except jwt.InvalidSignatureError:
                return None

        found = await self._keys.find(algorithm, kid, verified_claims, max_waiting)
        if found is None:
            known = self._keys.names(kid)
            raise _invalid("the token's signature is wrong" if known else "the token's key is not one of its issuer")
        key, claims = found
        caller = self._caller(claims)
        self._remember(token, _Verified(caller, self._end(claims), key))
        return caller

    def _decode(self, token: str, key: Key | None = None, algorithm: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the header and the claims of a token. Without a key, the signature is not verified.

        Raises:
            ApiError: The token is not accepted, whatever its signature.
            jwt.InvalidSignatureError: It is not signed with this key.
        """
        try:
            decoded = jwt.decode_complete(
                token,
                key.public if key else "",
                algorithms=[algorithm],
                audience=self._config.audiences,
                issuer=self._config.issuer,
                leeway=self._config.leeway,
                options=cast("Any", {**_OPTIONS, "verify_signature": key is not None}),
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.ExpiredSignatureError:
            raise unauthenticated(TOKEN_EXPIRED, "the token has expired") from None
        except jwt.MissingRequiredClaimError as error:
            raise _invalid(f"the token lacks the claim {error.claim}") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _invalid(_PROBLEMS.get(type(error), "the token is malformed")) from None
        claims = decoded["payload"]
        # PyJWT accepts numbers in texts. RFC 7519, 2: a NumericDate is a number.
        if any(not _is_number(claims[name]) for name in _TIMES if name in claims):
            raise _invalid("the token has a time (exp, nbf or iat) that is no number")
        subject = claims["sub"]
        if not subject or len(subject) > MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise _invalid(_PROBLEMS[InvalidSubjectError])
        return decoded["header"], claims

    def _caller(self, claims: dict[str, Any]) -> Caller:
        subject = claims["sub"]
        return Caller(subject=subject, is_staff=self._is_staff(claims), scope=subject)

    def _is_staff(self, claims: dict[str, Any]) -> bool:
        value, claim = self._config.staff_value, _find_claim(claims, self._config.staff_claim)
        if isinstance(claim, str):
            return claim == value or value in claim.split()
        if is_list(claim):
            return value in claim
        return claim is True and value == "true"

    def _end(self, claims: Mapping[str, Any]) -> float:
        return min(int(claims["exp"]), time.time() + MAX_REMEMBERED_TIME) + self._config.leeway

    def _remember(self, token: str, verified: _Verified) -> None:
        self._forget(token)
        self._remembered[token] = verified
        self._remembered_bytes += len(token)
        while len(self._remembered) > MAX_REMEMBERED or self._remembered_bytes > MAX_REMEMBERED_BYTES:
            self._forget(next(iter(self._remembered)))

    def _forget(self, token: str) -> None:
        if self._remembered.pop(token, None) is not None:
            self._remembered_bytes -= len(token)


def _find_claim(claims: dict[str, Any], name: str) -> object:
    """Returns the claim of a name or, if there is none, of a path with dots."""
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        value = value.get(part) if is_object(value) else None
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _invalid(text: str) -> ApiError:
    return unauthenticated(TOKEN_INVALID, text)
