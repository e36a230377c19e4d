"""Hashes that stand for callers in logs. All processes make the same hash of a caller.

The hash has a key, which is derived from the credential of the shop's own processes. Without that credential, nobody
can find out whom a hash stands for by hashing a list of customers.
"""

from hashlib import blake2s

from runtime.access.credential import Credential

SIZE = 6
"""Bytes of a hash. Among a million callers, the chance that another has the same hash is 1 in 280 million."""

PURPOSE = b"caller"
"""Keeps the key apart from other keys that may be derived from the same secret."""


def caller_hash(name: str, secret: str) -> str:
    """Returns the hash of a caller, in hexadecimal digits.

    Args:
        name: The subject of the caller's token, or how a gateway names the caller.
        secret: The credential of the shop's own processes.
    """
    key = blake2s(secret.encode(), person=PURPOSE).digest()
    return blake2s(name.encode(), key=key, digest_size=SIZE).hexdigest()


class CallerHash:
    """Hashes callers with the current credential of this process."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def __call__(self, name: str) -> str:
        """Returns the hash of a caller."""
        return caller_hash(name, self._credential.secrets[0])
