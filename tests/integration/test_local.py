"""`make up` and `make reset`: loopback only, clear messages, and no process left behind."""

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from local import children
from local.children import wait_for_exit
from local.postgres import Postgres
from local.settings import LOOPBACK, Settings
from local.shop import envoy_command
from runtime.config import ConfigError
from tests.support.up import NOBODY, Up, python_for

Start = Callable[..., Up]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `python -m local`, and ends it after the test, however that ends."""
    started: list[Up] = []

    def run(*arguments: Any, **named: Any) -> Up:
        started.append(Up(*arguments, **named))
        return started[-1]

    yield run
    for up in started:
        up.close()


def listening(pids: list[int]) -> set[str]:
    """Returns the addresses that processes listen on."""
    sockets = {target for pid in pids for target in _open_files(pid)}
    found = set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            found.add(socket.inet_ntoa(bytes.fromhex(fields[1].split(":")[0])[::-1]))
    return found


def _open_files(pid: int) -> Iterator[str]:
    """Leaves out files that are closed meanwhile, and processes that end."""
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield os.readlink(link)


def test_up_leaves_no_process_behind(tmp_path: Path, start: Start) -> None:
    """Ctrl-C, a second start with the same data, and a SIGKILL of the parent: no process is left after any of them."""
    state = tmp_path / "state"
    first_start = 0.0
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        began = time.monotonic()
        up = start(state, http_proxy="http://127.0.0.1:9")  # a proxy must not be used for processes on this machine
        output = up.until_ready()
        assert f"http://localhost:{up.ports[0]}" in output
        took = time.monotonic() - began
        if number == signal.SIGINT:
            first_start = took
        else:
            # Of what the first start took, which is more on a busy machine.
            assert took < max(20, 2 * first_start), "a second start must be quick"
            assert "0 of" in (state / "logs" / "demo-load.log").read_text().splitlines()[-1], "the data must be kept"
        pids = up.pids()
        assert len(pids) >= 6
        assert listening(pids) == {LOOPBACK}
        assert re.fullmatch(
            r"shop: another shop \(pid \d+\) uses .*; set STATE_DIR to another folder\n", start(state).refusal()
        )
        assert up.end(number) == status
        assert all(wait_for_exit(pid, 15) for pid in pids)
    Postgres(state).remove()


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PORT": "http"}, "shop: PORT must be a whole number, not 'http'"),
        ({"PORT": "70000"}, "shop: PORT must be from 1 to 65535, not 70000"),
        ({"PORT": "50052", "PRODUCT_PORT": "50052"}, "shop: PORT and PRODUCT_PORT are both 50052"),
        ({"STATE_DIR": "/proc/shop"}, "shop: STATE_DIR: cannot write to /proc/shop: No such file or directory"),
        ({"AUTH_MODE": "on"}, "shop: AUTH_MODE must be one of none, jwt, not 'on'"),
        ({"AUTH_GUESTS": "false"}, "shop: AUTH_GUESTS has no effect with AUTH_MODE=none"),
        ({"AUTH_MODE": "jwt", "AUTH_LEEWAY": "1h"}, "shop: AUTH_LEEWAY must be a number of seconds, not '1h'"),
        (
            {"AUTH_MODE": "jwt", "AUTH_ALGORITHMS": "RS256"},
            "shop: AUTH_ALGORITHMS must include ES256, or set AUTH_ISSUER",
        ),
        ({"AUTH_MODE": "jwt", "AUTH_ISSUER": "https://login.example"}, "shop: AUTH_AUDIENCE is missing"),
        (
            {"AUTH_MODE": "jwt", "AUTH_ISSUER": "a", "AUTH_AUDIENCE": "b", "AUTH_JWKS_FILE": "/nowhere"},
            "shop: AUTH_JWKS_FILE: cannot read /nowhere",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, "shop: OTEL_EXPORTER_OTLP_ENDPOINT: the OTLP endpoint must be"),
    ],
)
def test_bad_value_is_reported_in_one_line(
    tmp_path: Path, start: Start, environment: Mapping[str, str], line: str
) -> None:
    output = start(tmp_path, **environment).refusal()
    assert output.startswith(line)
    assert output.count("\n") == 1


def test_busy_port_is_reported_in_one_line(tmp_path: Path, start: Start) -> None:
    with socket.socket() as busy:
        busy.bind((LOOPBACK, 0))
        busy.listen()
        port = busy.getsockname()[1]
        output = start(tmp_path, ORDER_PORT=str(port)).refusal()
    assert output == f"shop: port {port} is in use; set ORDER_PORT to another port\n"


def test_envoy_raises_its_open_file_limit(tmp_path: Path) -> None:
    """It raises the soft limit to the hard one, as the documentation says. Each stream takes two files."""
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text("static_resources: {}")
    command = ["prlimit", "--nofile=256:2000", *envoy_command(bootstrap)]
    envoy = children.start("envoy", command, tmp_path, dict(os.environ))
    try:
        deadline = time.monotonic() + 20
        while not re.search(r"Max open files +2000 +2000", Path(f"/proc/{envoy.process.pid}/limits").read_text()):
            envoy.check()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        envoy.stop()


def test_settings_error_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="ORDER_PORT"):
        Settings.from_env({"ORDER_PORT": "-1"})


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder of the user nobody, who cannot enter the folders that pytest makes."""
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


def test_up_runs_without_root(nobodys_folder: Path, nobodys_python: str, start: Start) -> None:
    """The whole shop, as nobody."""
    up = start(nobodys_folder / "state", user=NOBODY, python=nobodys_python)
    up.until_ready()
    assert up.end(signal.SIGINT) == 0


def test_privileged_port_is_reported_in_one_line(nobodys_folder: Path, nobodys_python: str, start: Start) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 79:
        pytest.skip("every user may have any port here")
    output = start(nobodys_folder / "state", user=NOBODY, python=nobodys_python, PORT="79").refusal()
    assert output == "shop: port 79 is reserved for root; set PORT to another port\n"


def test_reset_deletes_only_the_shops_files(tmp_path: Path, start: Start) -> None:
    """STATE_DIR may name a folder that has other files, or one that no shop ever used."""
    other = tmp_path / "logs" / "of-others.log"
    other.parent.mkdir()
    other.touch()
    assert start(tmp_path, command="reset").output() == f"there is no shop's data in {tmp_path}\n"
    assert other.exists()
    other.unlink()
    mine = tmp_path / "mine"
    for path in (mine, tmp_path / "lock", tmp_path / "secrets.json"):
        path.touch()
    key = tmp_path / "issuer" / "key.pem"
    key.parent.mkdir()
    key.touch()
    assert start(tmp_path, command="reset").output() == f"deleted the shop's data in {tmp_path}\n"
    assert list(tmp_path.iterdir()) == [mine]
