"""Where the database is, and the role that the service logs in as.

Files of credentials are read again for each connection: a mounted Secret changes while the process runs, and a rotated
password is used from the next connection on.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
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
"""Parameters of libpq, by the names of the files that have them. The names are the keys of a CloudNativePG `…-app`
Secret."""

_LOGIN_REFUSED = re.compile(
    r"authentication failed|no password supplied|role \"[^\"]*\" (does not exist|is not permitted to log in)"
)
"""How PostgreSQL refuses a login. libpq does not reveal the SQLSTATE of a refused connection. If the server speaks
another language than English, this counts as an outage."""

Conninfo = str | Callable[[], str]
"""A connection string, or a function that returns one for each connection."""


def resolve(conninfo: Conninfo) -> str:
    """Returns the connection string of a new connection."""
    return conninfo if isinstance(conninfo, str) else conninfo()


class ConnectionInfo:
    """Makes the connection strings of a process."""

    def __init__(self, config: DatabaseConfig, application: str, *, through_pooler: bool = False) -> None:
        """Checks the configuration.

        Args:
            config: Where the database is.
            application: The name that PostgreSQL shows for the connections.
            through_pooler: Whether to connect through the pooler, if there is one.

        Raises:
            ConfigError: A connection string is malformed, or the folder of credentials is missing.
        """
        self._configured = _parse("DATABASE_URL", config.conninfo)
        pooler = _parse("DATABASE_POOLER_URL", config.pooler)
        if through_pooler:
            self._configured |= pooler
        self._configured |= _parse("DATABASE_READ_URL", config.replicas)
        # Of several hosts, the primary: a standby accepts no writes, and shows commits late.
        self._session = "any" if config.replicas else "primary"
        self._folder = Path(config.credentials) if config.credentials else None
        if self._folder and not self._folder.is_dir():
            raise ConfigError(f"DATABASE_CREDENTIALS must be a folder, not {config.credentials!r}")
        self._application = application

    def __call__(self) -> str:
        """Returns the connection string as of now.

        A parameter comes from the first that has it: DATABASE_URL, the files, libpq's own environment variables.

        Raises:
            psycopg.OperationalError: A file cannot be read.
        """
        parameters = {**self._read_files(), **self._configured}
        # Errors of the driver name the host only if it is passed.
        parameters["host"] = parameters.get("host") or os.environ.get("PGHOST") or None
        parameters |= {"application_name": self._application, "target_session_attrs": self._session}
        # A host that vanishes in a failover ends no connection. These find out, unless something in between goes on
        # acknowledging packets. In seconds; tcp_user_timeout in milliseconds.
        parameters |= {"connect_timeout": 3, "tcp_user_timeout": 4_000}
        parameters |= {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3}
        return make_conninfo("", **parameters)

    @cached_property
    def database(self) -> str:
        """The name of the database; empty if libpq decides, or if the file with it cannot be read."""
        try:
            found = conninfo_to_dict(self())
        except psycopg.Error:
            return ""
        return str(found.get("dbname") or os.environ.get("PGDATABASE", ""))

    def _read_files(self) -> dict[str, str]:
        parameters: dict[str, str] = {}
        if self._folder is None:
            return parameters
        for name, parameter in FILES.items():
            try:
                # Files written by hand end with a line break.
                text = (self._folder / name).read_text("utf-8").removesuffix("\n")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise psycopg.OperationalError(f"cannot read {self._folder}/{name}: {type(error).__name__}") from None
            if text:
                parameters[parameter] = text
        return parameters


def _parse(variable: str, conninfo: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise ConfigError(f"{variable} must be a PostgreSQL connection string or URI") from None


def is_login_refused(error: psycopg.OperationalError) -> bool:
    """Returns whether the server refused the login. With the same credentials it always will."""
    return bool(_LOGIN_REFUSED.search(str(error)))
