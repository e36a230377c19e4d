"""A secret of the shop in files, which is replaced while the processes run."""

import hmac
import logging
import time
from pathlib import Path

from runtime.config import ConfigError
from runtime.logs import LogOnce

log = logging.getLogger(__name__)

CURRENT = "current"
"""The file with the secret that is used: sent, or signed with."""

ADDITIONAL = "additional"
"""The file with a second secret that is accepted; optional. It has the next secret before a change, and the last one
after it."""

MIN_LENGTH = 32
"""Bytes that a secret must have."""

READ_INTERVAL = 1.0
"""Seconds for which the files are not read again."""

MAX_READS = 3
"""How often the files are read again at once while they change."""

REREAD_INTERVAL = 0.05
"""Seconds before they are read again for a secret that is not accepted: it may be newer than what was read."""


class RotatingSecret:
    """A secret in a folder of files, read again and again.

    To change a secret without a failed call, write the new one to ADDITIONAL, wait until every process has read it,
    exchange the two files, wait again, and remove ADDITIONAL.
    """

    def __init__(self, folder: Path, variable: str) -> None:
        """Reads the files.

        Args:
            folder: The folder, with a file CURRENT, and maybe ADDITIONAL.
            variable: The variable that names the folder, for messages.

        Raises:
            ConfigError: There is no usable secret.
        """
        self._folder = folder
        self._failures = LogOnce(log, logging.WARNING)
        self._read_at = time.monotonic()
        try:
            self._secrets = self._read()
        except OSError as error:
            reason = error.strerror
            raise ConfigError(f"{variable}: cannot read {folder / CURRENT}: {reason}") from None
        except ValueError as error:
            raise ConfigError(f"{variable}: {error}") from None

    @property
    def current(self) -> str:
        """The secret that is sent or signed with."""
        return self._fresh(READ_INTERVAL)[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        """All secrets that are accepted, the current one first."""
        return self._fresh(READ_INTERVAL)

    def accepts(self, value: str) -> bool:
        """Returns whether a value is one of the accepted secrets."""
        return _is_in(value, self._fresh(READ_INTERVAL)) or _is_in(value, self._fresh(REREAD_INTERVAL))

    def _fresh(self, max_age: float) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._read_at >= max_age:
            self._read_at = now
            try:
                self._secrets = self._read()
                self._failures.reset()
            except (OSError, ValueError) as error:
                # The files are being replaced, or were removed by mistake: what was accepted stays.
                self._failures(f"cannot read the secret in {self._folder}: {type(error).__name__}")
        return self._secrets

    def _read(self) -> tuple[str, ...]:
        secrets = self._read_once()
        # Between the two reads the files may have been exchanged, and one of the secrets would be missing.
        for _ in range(MAX_READS):
            before, secrets = secrets, self._read_once()
            if secrets == before:
                break
        return secrets

    def _read_once(self) -> tuple[str, ...]:
        current = self._read_file(CURRENT)
        try:
            return current, self._read_file(ADDITIONAL)
        except FileNotFoundError:
            return (current,)

    def _read_file(self, name: str) -> str:
        # Files written by hand end with a line break.
        secret = (self._folder / name).read_text("ascii").strip()
        if len(secret) < MIN_LENGTH:
            raise ValueError(f"the secret in {self._folder / name} must have {MIN_LENGTH} characters or more")
        return secret


def _is_in(value: str, secrets: tuple[str, ...]) -> bool:
    given = value.encode()
    return any(hmac.compare_digest(given, secret.encode()) for secret in secrets)
