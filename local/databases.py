"""The databases in PostgreSQL: one for each service, owned by a role of the same name."""

from collections.abc import Mapping, Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

SUPERUSER = "postgres"

SERVICES = ("product", "order")
"""The services that have a database. Its name, and the name of the role that owns it, is the service's."""

RENAMED = {"orders": "order"}
"""Earlier names of databases and roles, with today's. `make up` keeps data for years, so it still finds the earlier."""


def rename_databases(conninfo: str) -> None:
    """Renames databases and roles that still have an earlier name. A second call changes nothing.

    Args:
        conninfo: How the superuser connects.
    """
    with psycopg.connect(conninfo) as connection:
        for old, new in RENAMED.items():
            names = sql.Identifier(old), sql.Identifier(new)
            if _exists(connection, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", old):
                connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
            if _exists(connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", old):
                connection.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(*names))


def create_databases(conninfo: str, services: Sequence[str], passwords: Mapping[str, str]) -> None:
    """Creates the database and the role of each service that has none. Nobody else can connect to the database.

    Args:
        conninfo: How the superuser connects.
        services: The services that need a database.
        passwords: The password of each role.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for service in services:
            if _exists(connection, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", service):
                continue
            name, password = sql.Identifier(service), sql.Literal(passwords[service])
            if not _exists(connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", service):
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password))
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")


def _exists(connection: psycopg.Connection, query: LiteralString, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() == (True,)
