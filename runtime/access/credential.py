"""The credential of the shop's own processes, by which they know each other."""

from runtime.access.config import AccessConfig
from runtime.access.secret import RotatingSecret

CREDENTIAL = "x-shop-credential"
"""The metadata key of the credential. The edge removes it from requests."""

Metadata = tuple[tuple[str, str], ...]


class Credential:
    """The credential that a process sends with internal calls, and asks for."""

    def __init__(self, config: AccessConfig) -> None:
        """Reads the credential. Raises ConfigError if that is not possible."""
        self._secret = RotatingSecret(config.credentials, "INTERNAL_CREDENTIALS")

    def metadata(self) -> Metadata:
        """Returns the metadata of an internal call."""
        return ((CREDENTIAL, self._secret.current),)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials that are accepted, the current one first."""
        return self._secret.accepted

    def accepts(self, given: list[str]) -> bool:
        """Returns whether the values that a caller sent are the credential."""
        return len(given) == 1 and self._secret.accepts(given[0])
