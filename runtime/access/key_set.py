"""The public keys that verify tokens, from a JSON Web Key Set (RFC 7517)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import jwt

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

FITTING: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""The algorithms that each type of key, with its curve, is made for."""

PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""What a public key of each type consists of (RFC 7518, 6; RFC 8037, 2)."""

MIN_RSA_BITS = 2048
"""The shortest RSA key that is used (RFC 7518, 3.3)."""

MAX_KEYS = 100
"""How many keys of a set are used: a token that names no key is tried with each. Issuers have two to ten."""


class KeySetError(Exception):
    """A key set cannot be used. The message says why, as one line for the log."""


@dataclass(eq=False, slots=True)
class Key:
    """A public key that verifies tokens."""

    kid: str | None
    """The name by which tokens refer to it."""
    algorithms: tuple[str, ...]
    """The algorithms that it may be used with."""
    public: Any
    """The key as cryptography knows it."""
    jwk: Mapping[str, str]
    """The key as it was published, without what verifying does not need."""
    in_use: bool = True
    """Whether it is still in the issuer's set."""


@dataclass(frozen=True)
class KeySet:
    """The keys of an issuer that can be used."""

    keys: tuple[Key, ...] = ()
    ignored: tuple[str, ...] = ()
    """Why each of its other keys cannot be used."""

    def names(self, kid: str | None) -> bool:
        """Returns whether a key has this name."""
        return any(key.kid == kid for key in self.keys)

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """Returns the keys that may have signed a token. A token may name no key, and a key may have no name."""
        return [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
        ]

    def to_json(self) -> str:
        """Returns the set as JSON."""
        return json.dumps({"keys": [dict(key.jwk) for key in self.keys]}, separators=(",", ":"))


def parse_key_set(text: bytes, algorithms: Sequence[str], known: KeySet) -> KeySet:
    """Reads a key set. Keys that are the same as before stay the same objects, and those that left are marked.

    Args:
        text: The set as JSON.
        algorithms: The algorithms that are allowed.
        known: The set as it was before.

    Raises:
        KeySetError: It is no key set, or has no key that can be used.
    """
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        raise KeySetError("not JSON") from None
    listed = document.get("keys") if is_object(document) else None
    if not is_list(listed):
        raise KeySetError("no list `keys`")
    before = {_identity(key): key for key in known.keys}
    keys: dict[tuple[tuple[str, str], ...], Key] = {}
    ignored: list[str] = []
    for jwk in listed:
        try:
            key = _parse_key(jwk, algorithms)
        except KeySetError as error:
            ignored.append(str(error))
        else:
            keys[_identity(key)] = before.get(_identity(key), key)
    if not keys:
        reasons = ", ".join(dict.fromkeys(ignored))
        raise KeySetError("no key that can be used" + (f" ({reasons})" if reasons else ""))
    used = tuple(keys.values())[:MAX_KEYS]
    for key in known.keys:
        key.in_use = key in used
    return KeySet(used, tuple(ignored))


def _identity(key: Key) -> tuple[tuple[str, str], ...]:
    return tuple(key.jwk.items())


def _parse_key(jwk: object, allowed: Sequence[str]) -> Key:
    """Reads one key. Raises KeySetError if it cannot be used."""
    if not is_object(jwk):
        raise KeySetError("a key is no object")
    kid, kty, algorithm = jwk.get("kid"), jwk.get("kty"), jwk.get("alg")
    if kid is not None and not isinstance(kid, str):
        raise KeySetError("a kid is no text")
    curve = jwk.get("crv") if kty != "RSA" else ""
    fitting = FITTING.get((kty, curve)) if isinstance(kty, str) and isinstance(curve, str) else None
    if not isinstance(kty, str) or fitting is None:
        raise KeySetError("a type of key that is not supported")
    if jwk.get("use", "sig") != "sig":
        raise KeySetError("a key that is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not is_list(operations) or "verify" not in operations:
        raise KeySetError("a key that is not for verifying")
    if "d" in jwk:
        raise KeySetError("a private key, which must be replaced: whoever read it can sign tokens")
    if algorithm is not None and algorithm not in fitting:
        raise KeySetError("a key whose type does not fit its alg")
    algorithms = tuple(each for each in fitting if each in allowed and algorithm in (None, each))
    if not algorithms:
        raise KeySetError("a key of an algorithm that AUTH_ALGORITHMS does not allow")
    members = {name: jwk.get(name) for name in PUBLIC_MEMBERS[kty]}
    try:
        public = jwt.PyJWK({"kty": kty} | members, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise KeySetError("a malformed key") from None
    if kty == "RSA" and public.key_size < MIN_RSA_BITS:
        raise KeySetError(f"an RSA key below {MIN_RSA_BITS} bits")
    published: dict[str, Any] = {"kty": kty} | members | {"use": "sig", "alg": algorithm, "kid": kid}
    return Key(kid, algorithms, public, {name: value for name, value in published.items() if value is not None})


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Returns whether a value of JSON is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Returns whether a value of JSON is a list."""
    return isinstance(value, list)
