"""The migrations of a service, and whether a database has the schema that they make.

A migration is a file named like `0001_what_it_does.sql`. It runs as one transaction, unless its first line is

    -- migrate: no transaction

as for an index that is built while others write. Each statement of such a file is a transaction of its own. An attempt
can fail between two of them, and the next attempt starts with the first statement, so each must be able to run again.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, Self

RECORD: LiteralString = "SELECT version, name FROM schema_migration ORDER BY version"
"""Reads which migrations were applied to a database."""

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_NO_TRANSACTION = re.compile(r"\A-- migrate: no transaction *\n")
_HEADER = re.compile(r"^\s*--\s*migrate\b.*$", re.MULTILINE | re.IGNORECASE)
_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?P<tag>\$\w*\$).*?(?P=tag) | ;""",
    re.DOTALL | re.VERBOSE,
)
"""Matches what may contain a semicolon that ends no statement, and a semicolon that ends one."""
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CREATE = re.compile(r'CREATE (UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (?P<name>\w+|"[^"]+") ON ', re.IGNORECASE)
_DROP = re.compile(r"DROP INDEX CONCURRENTLY IF EXISTS ", re.IGNORECASE)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)


class MigrationError(Exception):
    """The schema cannot be brought up to date. The message is one line for people."""


@dataclass(frozen=True)
class Statement:
    """One statement of a migration outside of a transaction."""

    text: str
    concurrent: bool
    """Whether others can read and write while it waits for locks."""
    index: str | None
    """The index that it builds, if any. A failed attempt leaves the index behind, but invalid."""


@dataclass(frozen=True)
class Migration:
    """One file of migrations."""

    version: int
    name: str
    """The name of the file, without `.sql`."""
    text: str
    statements: Sequence[Statement] | None
    """None if the whole file is one transaction."""

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex. It does not depend on the line endings of the checkout."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file.

        Raises:
            MigrationError: Its name or its first line is malformed, or a statement cannot run again.
        """
        match = _NAME.fullmatch(path.name)
        if not match:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
        text = path.read_text(encoding="utf-8")  # with universal newlines
        alone = bool(_NO_TRANSACTION.match(text))
        if len(_HEADER.findall(text)) != alone:
            raise MigrationError(f"{path.name}: write `-- migrate: no transaction` as the first line, or not at all")
        return cls(int(match[1]), path.stem, text, _statements(path.name, text) if alone else None)


@dataclass(frozen=True)
class Schema:
    """The migrations of one service, in order."""

    names: Sequence[str]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads the migrations in a directory.

        Raises:
            MigrationError: A file is malformed, or a number is missing.
        """
        return cls([each.name for each in migrations(directory)])

    @property
    def version(self) -> int:
        """The number of the newest migration."""
        return len(self.names)

    def check(self, record: Iterable[tuple[int, str]]) -> str:
        """Returns why a database cannot be used, in one line; empty if it can.

        Args:
            record: The version and the name of each migration that was applied.
        """
        names = dict(record)
        if problem := self.check_owner(names.items()):
            return problem
        applied = max(names, default=0)
        return "" if applied >= self.version else f"the schema is at version {applied}; {self.version} is needed"

    def check_owner(self, record: Iterable[tuple[int, str]]) -> str:
        """Returns whose database it is, in one line, if it belongs to another service; empty otherwise."""
        for (version, name), ours in zip(sorted(record), self.names, strict=False):
            if name != ours:
                return (
                    f"the database belongs to another service: its migration {version} is {name}, not {ours}; "
                    "give each service a database of its own"
                )
        return ""


def migrations(directory: Path) -> list[Migration]:
    """Reads the migrations in a directory, in order.

    Raises:
        MigrationError: A file is malformed, or their numbers do not run from 1 without a gap.
    """
    found = [Migration.read(path) for path in sorted(directory.glob("*.sql"))]
    if [each.version for each in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the migrations in {directory} are not numbered from 1 without a gap")
    return found


def _statements(file: str, text: str) -> list[Statement]:
    r"""Splits a file at its semicolons. Escaped quotes (E'\'') and comments within comments are not supported."""
    texts: list[str] = []
    start = 0
    for token in _TOKEN.finditer(text):
        if token[0] == ";":
            texts.append(text[start : token.start()])
            start = token.end()
    texts.append(text[start:])
    return [_statement(file, each.strip()) for each in texts if _plain(each)]


def _statement(file: str, text: str) -> Statement:
    plain = _plain(text)
    create = _CREATE.match(plain)
    concurrent = bool(_CONCURRENTLY.search(plain))
    if concurrent and not (create or _DROP.match(plain)):
        raise MigrationError(
            f"{file}: write CREATE INDEX CONCURRENTLY IF NOT EXISTS name ON … or DROP INDEX CONCURRENTLY IF EXISTS …: "
            "a statement outside of a transaction must be able to run again"
        )
    return Statement(text, concurrent, create["name"] if create else None)


def _plain(text: str) -> str:
    """Returns a statement without comments, on one line."""
    return " ".join(_COMMENT.sub(" ", text).split())
