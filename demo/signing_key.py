"""The key that signs the tokens of the demo's issuer: a private key on the curve P-256, in a PEM file."""

import json
import os
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.config import ConfigError, Env

ALGORITHM = "ES256"
"""The algorithm of the tokens."""

VARIABLE = "ISSUER_KEY"
"""The variable that names the file."""


class SigningKey:
    """A private key, and the public one that belongs to it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self._public = {"crv": "P-256", "kty": "EC", "x": _encode(numbers.x), "y": _encode(numbers.y)}
        # RFC 7638: the digest of the members that are required, in this order and without spaces.
        digest = sha256(json.dumps(self._public, separators=(",", ":")).encode()).digest()
        self.id = urlsafe_b64encode(digest).rstrip(b"=").decode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the key from a file. Raises ConfigError if there is none on the curve P-256."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ConfigError(f"{VARIABLE}: cannot read {path}: {error.strerror}") from None
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"{VARIABLE}: {path} must have a private key on the curve P-256, in PEM, unencrypted")
        return cls(key)

    @classmethod
    def read_or_make(cls, path: Path) -> Self:
        """Reads the key, which is made if there is no file. Raises ConfigError if that is not possible."""
        if not path.exists():
            _make(path)
        return cls.read(path)

    def jwks(self) -> str:
        """Returns the public key as a JSON Web Key Set (RFC 7517)."""
        return json.dumps({"keys": [{**self._public, "kid": self.id, "alg": ALGORITHM, "use": "sig"}]})

    def sign(self, claims: Mapping[str, object]) -> str:
        """Returns a token with these claims."""
        return jwt.encode(dict(claims), self._key, ALGORITHM, {"kid": self.id})


def key_path(env: Env) -> Path | None:
    """Returns the file of the key, as configured; None if none is."""
    path = env.text(VARIABLE, "")
    return Path(path) if path else None


def required_key_path(env: Env) -> Path:
    """Returns the file of the key. Raises ConfigError if none is configured."""
    if not (path := key_path(env)):
        raise ConfigError(f"{VARIABLE} is missing: a file with the private key that signs tokens")
    return path


def _make(path: Path) -> None:
    """Makes a key that only the current user can read. Two processes that do this at once get the same key."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:  # its mode is 0600
            file.write(pem)
            file.flush()
            os.link(file.name, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"{VARIABLE}: cannot write {path}: {error.strerror}") from None


def _encode(coordinate: int) -> str:
    """Encodes a coordinate of the curve P-256 (RFC 7518, 6.2.1.2)."""
    return urlsafe_b64encode(coordinate.to_bytes(32, "big")).rstrip(b"=").decode()
