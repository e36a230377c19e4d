"""`make up` on one machine: isolation, loopback only, and no process left behind, whatever ends it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from local.children import ChildError, gone
from local.postgres import Postgres
from local.settings import LOOPBACK, REPOSITORY, Settings, free_ports
from runtime.config import ConfigError
from tests.support.database import FAST


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("state"), options=FAST)
    server.start()
    yield server
    server.stop()
    server.remove()


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


class Up:
    """`python -m local up` as a child."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.ports = free_ports(3)
        names = ("PORT", "PRODUCT_PORT", "ORDER_PORT")
        ports = {name: str(port) for name, port in zip(names, self.ports, strict=True)}
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", "up"],
            cwd=REPOSITORY,
            env={**os.environ, **ports, "STATE_DIR": str(state), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_ready(self) -> str:
        assert self.process.stdout
        said = ""
        for line in self.process.stdout:
            said += line
            if line == "ready\n":
                return said
        raise AssertionError(f"it ended: {said}{self.process.stderr and self.process.stderr.read()}")

    def pids(self) -> list[int]:
        """Every process below it."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        below = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        return sorted(below - {self.process.pid})

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.process.wait(30)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return self.process.returncode


def listening(pids: list[int]) -> set[str]:
    """The addresses that processes listen on."""
    sockets = {os.readlink(link) for pid in pids for link in _links(pid)}
    found = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            found.add(socket.inet_ntoa(bytes.fromhex(fields[1].split(":")[0])[::-1]))
    return found


def _links(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []


def test_up_comes_and_goes_without_a_trace(tmp_path: Path) -> None:
    """Ctrl-C, a second start with the data kept, and a kill -9 of the parent, after each of which nobody is left."""
    state = tmp_path / "state"
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        up = Up(state)
        began = time.monotonic()
        said = up.until_ready()
        assert f"http://localhost:{up.ports[0]}" in said
        if number != signal.SIGINT:
            assert time.monotonic() - began < 20, "a second start is quick"
            assert "0 of" in (state / "logs" / "demo-load.log").read_text().splitlines()[-1], "the data was kept"
        pids = up.pids()
        assert len(pids) >= 6
        assert listening(pids) == {LOOPBACK}
        second = Up(state)
        assert second.process.stderr
        assert re.fullmatch(
            r"shop: a shop \(pid \d+\) runs on .*; set STATE_DIR to another folder\n", second.process.stderr.read()
        )
        assert second.end(0) == 1
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
def test_a_bad_value_is_one_clear_line(tmp_path: Path, environment: Mapping[str, str], line: str) -> None:
    up = Up(tmp_path, **environment)
    assert up.process.stderr
    said = up.process.stderr.read()
    assert said.startswith(line)
    assert said.count("\n") == 1
    assert up.end(0) == 1


def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind((LOOPBACK, 0))
        busy.listen()
        port = busy.getsockname()[1]
        up = Up(tmp_path, ORDER_PORT=str(port))
        assert up.process.stderr
        assert up.process.stderr.read() == f"shop: port {port} is taken; set ORDER_PORT to another one\n"
        assert up.end(0) == 1


def test_a_missing_tool_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.postgres.find_spec", lambda _: None)
    from local.postgres import installed

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


@pytest.mark.skipif(os.geteuid() != 0, reason="already somebody else than root")
def test_another_user_than_root_can_run_it(tmp_path: Path) -> None:
    """The whole shop, as nobody."""
    state = Path(f"/tmp/shop-nobody-{os.getpid()}")
    state.mkdir()
    os.chown(state, 65534, 65534)
    if subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "test", "-r", sys.executable], check=False
    ).returncode:
        pytest.skip("nobody cannot read this clone")
    ports = dict(zip(("PORT", "PRODUCT_PORT", "ORDER_PORT"), map(str, free_ports(3)), strict=True))
    process = subprocess.Popen(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "local", "up"],
        cwd=REPOSITORY,
        env={**os.environ, **ports, "STATE_DIR": str(state), "HOME": str(state), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "ready\n":
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()
    assert lines[-1] == "ready\n"
    subprocess.run(["rm", "-rf", str(state)], check=True)
