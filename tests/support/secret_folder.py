"""A secret in a folder, which a test changes as an operator does."""

from pathlib import Path
from secrets import token_hex

from runtime.access.secret import ADDITIONAL, CURRENT


class SecretFolder:
    """A folder with the files `current` and, during a change, `additional`."""

    def __init__(self, path: Path, secret: str = "") -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self._write(CURRENT, secret or token_hex(32))

    def add(self, secret: str = "") -> None:
        """Adds the next secret: it is accepted, and not used yet."""
        self._write(ADDITIONAL, secret or token_hex(32))

    def exchange(self) -> None:
        """Uses the next secret; the last one is still accepted."""
        current, additional = self.read(CURRENT), self.read(ADDITIONAL)
        # Never is one of the two secrets in neither file.
        self._write(CURRENT, additional)
        self._write(ADDITIONAL, current)

    def remove(self) -> None:
        """Accepts the last secret no longer."""
        (self.path / ADDITIONAL).unlink()

    def replace(self) -> None:
        """Replaces the secret at once, as after a leak."""
        self._write(CURRENT, token_hex(32))

    def read(self, name: str = CURRENT) -> str:
        return (self.path / name).read_text()

    def _write(self, name: str, secret: str) -> None:
        unfinished = self.path / f"{name}.tmp"
        unfinished.write_text(secret)
        unfinished.rename(self.path / name)
