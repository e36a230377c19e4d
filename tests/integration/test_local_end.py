"""The end of `make up`: within seconds, whatever it does at that moment and whoever asks for it."""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.children import below, gone
from local.postgres import Postgres
from local.settings import LOOPBACK, REPOSITORY, free_ports
from tests.support.up import Up

SECONDS = 10.0 if "PYTEST_XDIST_WORKER" in os.environ else 5.0
"""In which the shop has ended. Beside other tests it waits for a processor."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests: only the first start makes a database."""
    path = tmp_path_factory.mktemp("state")
    yield path
    Postgres(path).remove()


@pytest.fixture(autouse=True)
def without_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests measure how fast processes end, and `make coverage` slows down their ends."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def all_gone(pids: list[int], began: float) -> bool:
    return all(gone(pid, max(began + SECONDS - time.monotonic(), 0)) for pid in pids)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("", signal.SIGINT),
        ("starting PostgreSQL\n", signal.SIGINT),
        ("migrating\n", signal.SIGTERM),
        ("sse and Envoy\n", signal.SIGHUP),
        ("demo catalogue\n", signal.SIGINT),
    ],
)
def test_start_can_be_broken_off_at_any_time(state: Path, said: str, number: int) -> None:
    up = Up(state)
    try:
        if said:
            up.until(said)
        pids = [up.process.pid, *up.pids()]
        began = time.monotonic()
        up.process.send_signal(number)
        up.process.send_signal(number)  # who presses Ctrl-C twice is not answered with a traceback either
        _, complaint = up.process.communicate(timeout=SECONDS)
        # Before the interpreter is there, the signal ends setpriv.
        assert up.process.returncode in ((0,) if said else (0, -number))
        assert complaint == ""
        assert all_gone(pids, began)
    finally:
        up.close()


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from local.children import start
from local.stop import Stop, Stopped

class Lock:  # the signal comes where it hurts most
    def __init__(self, lock):
        self.lock = lock
    def acquire(self, *arguments):
        got = self.lock.acquire(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return got
    def __getattr__(self, name):
        return getattr(self.lock, name)
    def __enter__(self):
        self.lock.acquire()
    def __exit__(self, *_):
        self.lock.release()

child = start("sleep", ["sleep", "60"], Path(sys.argv[1]), dict(os.environ))
print(child.process.pid, flush=True)
stop = Stop()
stop.listen()
child.process._waitpid_lock = Lock(child.process._waitpid_lock)
if sys.argv[2] == "stuck":
    child.check()
    time.sleep(60)
try:
    while True:
        child.check()
        stop.sleep(0.1)
except Stopped:
    child.stop()
"""


@pytest.mark.parametrize(("main", "status"), [("waits", 0), ("stuck", 1)])
def test_signal_within_a_library_holds_nobody_up(tmp_path: Path, main: str, status: int) -> None:
    """A handler that raised there, while the library held a lock, kept whoever needed the lock waiting for ever. And a
    shop that is stuck where it looks at no signal is killed."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, main],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert time.monotonic() - began < SECONDS + 1, "with the start of the interpreter"
    assert gone(int(done.stdout), 1)


def order(url: str) -> str:
    """The id of a new order."""

    def call(path: str, body: object = None) -> dict[str, object]:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    product = call("/api/v1/products", {"name": "Lamp", "stock": 1, "price": {"currencyCode": "EUR", "units": "1"}})
    placed = call("/api/v1/orders", {"items": [{"productId": product["id"], "quantity": 1}]})
    return str(placed["id"])


def received(stream: socket.socket) -> bytes:
    """Everything until the other end closes."""
    parts = []
    while part := stream.recv(4096):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_shop_goes_with_its_terminal(state: Path) -> None:
    """As for `ssh -t host make up`, whose terminal tells make alone. Streams are told to come back, and a process that
    does not end is killed."""
    port, *others = free_ports(3)
    variables = {"PORT": port, "PRODUCT_PORT": others[0], "ORDER_PORT": others[1], "STATE_DIR": state}
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update({name: str(value) for name, value in variables.items()})
        os.execvp("make", ["make", "--directory", str(REPOSITORY), f"VENV={sys.prefix}", "up"])
    try:
        said = b""
        while b"\nready" not in said:
            said += os.read(terminal, 4096)
        children = below(pid)
        (stopped,) = [each for each in children if b"-m\0order\0" in Path(f"/proc/{each}/cmdline").read_bytes()]
        with socket.create_connection((LOOPBACK, port)) as stream:
            path = f"/api/orders/stream?order_id={order(f'http://{LOOPBACK}:{port}')}"
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            stream.settimeout(SECONDS)
            begun = b""
            while b"PLACED" not in begun:
                begun += stream.recv(4096)
            os.kill(stopped, signal.SIGSTOP)
            began = time.monotonic()
            os.close(terminal)
            end = received(stream)
        assert all_gone(children, began)
        assert b"retry: " in end
        assert end.endswith(b"0\r\n\r\n")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
