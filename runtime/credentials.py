"""Where the database is, and who we are there. What stands in files is read for each connection anew: a Secret that is
mounted changes while the process runs, and a password that somebody rotated counts from the next connection on."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime.config import ConfigError, DatabaseConfig

FILES: Mapping[str, str] = {
    "host": "host",
    "port": "port",
    "username": "user",
    "password": "password",
    "dbname": "dbname",
}
"""Names of files, and what libpq calls what is in them. They are the keys of a CloudNativePG `…-app` Secret."""

_REFUSED = re.compile(
    r"authentication failed|no password supplied|role \"[^\"]*\" (does not exist|is not permitted to log in)"
)
"""libpq keeps the SQLSTATE of a refused connection to itself. A server that speaks another language is not understood:
its refusal counts as an outage then."""


Conninfo = str | Callable[[], str]
"""A connection string, or what makes one for each connection."""


def resolve(conninfo: Conninfo) -> str:
    return conninfo if isinstance(conninfo, str) else conninfo()


class ConnectionInfo:
    """Makes the connection string of every connection of ours."""

    def __init__(self, config: DatabaseConfig, application: str, *, through_pooler: bool = False) -> None:
        """`application` is the name that the server shows; `through_pooler`: where there is one. Raises ConfigError."""
        self._given = _parsed("DATABASE_URL", config.conninfo)
        pooler = _parsed("DATABASE_POOLER_URL", config.pooler)
        if through_pooler:
            self._given |= pooler
        self._folder = Path(config.credentials) if config.credentials else None
        if self._folder and not self._folder.is_dir():
            raise ConfigError(f"DATABASE_CREDENTIALS must be a folder, not {config.credentials!r}")
        self._application = application

    def __call__(self) -> str:
        """The string as of now: what DATABASE_URL has, then the files, then libpq's own variables.

        Times are in seconds, tcp_user_timeout in ms. Raises OperationalError where a file cannot be read.
        """
        found = {**self._read(), **self._given}
        # The driver's errors name no host that it was not told.
        found["host"] = found.get("host") or os.environ.get("PGHOST") or None
        # Of several hosts, the primary: a standby takes no writes, and shows late what was committed.
        found |= {"application_name": self._application, "target_session_attrs": "primary", "connect_timeout": 5}
        found |= {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
        return make_conninfo("", **found)

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._folder is None:
            return found
        for name, parameter in FILES.items():
            try:
                # Files that people make end with a line break.
                text = (self._folder / name).read_text("utf-8").removesuffix("\n")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise psycopg.OperationalError(f"cannot read {self._folder}/{name}: {type(error).__name__}") from None
            if text:
                found[parameter] = text
        return found


def _parsed(variable: str, conninfo: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise ConfigError(f"{variable} must be a PostgreSQL connection string or URI") from None


def refused(error: psycopg.OperationalError) -> bool:
    """Whether the server answered and did not let us in: with the same credentials it never will."""
    return bool(_REFUSED.search(str(error)))
