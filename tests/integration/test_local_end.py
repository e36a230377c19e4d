"""`make up` ends within seconds, whatever it is doing and whatever ends it."""

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

from local.children import descendants, wait_for_exit
from local.postgres import Postgres
from local.settings import LOOPBACK, REPOSITORY, free_ports
from tests.support.up import Up

SECONDS = 10.0 if "PYTEST_XDIST_WORKER" in os.environ else 5.0
"""Within which the shop must have ended. Beside other tests, it has to wait for a processor."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state folder for all tests, since only the first start makes databases."""
    path = tmp_path_factory.mktemp("state")
    yield path
    Postgres(path).remove()


@pytest.fixture(autouse=True)
def without_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests measure how fast processes end, and `make coverage` slows down their ends."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def all_gone(pids: list[int], began: float) -> bool:
    return all(wait_for_exit(pid, max(began + SECONDS - time.monotonic(), 0)) for pid in pids)


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("", signal.SIGINT),
        ("starting PostgreSQL\n", signal.SIGINT),
        ("migrating the databases\n", signal.SIGTERM),
        ("sse and Envoy\n", signal.SIGHUP),
        ("demo catalogue\n", signal.SIGINT),
    ],
)
def test_start_can_be_cancelled_at_any_time(state: Path, output: str, number: int) -> None:
    up = Up(state)
    try:
        if output:
            up.until(output)
        pids = [up.process.pid, *up.pids()]
        began = time.monotonic()
        up.process.send_signal(number)
        up.process.send_signal(number)  # a second Ctrl-C must not cause a traceback either
        _, error = up.process.communicate(timeout=SECONDS)
        # Before the interpreter runs, the signal ends setpriv.
        assert up.process.returncode in ((0,) if output else (0, -number))
        assert error == ""
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
def test_signal_inside_a_library_ends_the_shop(tmp_path: Path, main: str, status: int) -> None:
    """An exception in a signal handler once left a lock of a library held for ever.

    A shop that is stuck, and does not notice the signal, is killed.
    """
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
    assert wait_for_exit(int(done.stdout), 1)


def order(url: str) -> str:
    """Places an order and returns its id."""

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
    """Reads until the other end closes."""
    parts = []
    while part := stream.recv(4096):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_shop_ends_with_its_terminal(state: Path) -> None:
    """A closed terminal signals make only, as with `ssh -t host make up`.

    Streams are told to reconnect, and a process that does not end is killed.
    """
    port, *others = free_ports(3)
    variables = {"PORT": port, "PRODUCT_PORT": others[0], "ORDER_PORT": others[1], "STATE_DIR": state}
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update({name: str(value) for name, value in variables.items()})
        os.execvp("make", ["make", "--directory", str(REPOSITORY), f"VENV={sys.prefix}", "up"])
    try:
        output = b""
        while b"\nready" not in output:
            output += os.read(terminal, 4096)
        children = descendants(pid)
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
