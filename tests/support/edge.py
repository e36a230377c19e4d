"""The real edge before services that only echo, for tests of Envoy's configuration."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from local.edge import EdgeSettings, write
from local.settings import free_ports
from local.shop import envoy_binary
from tests.support.echo import Calls, echo_services
from tests.support.eventually import eventually


@dataclass
class Edge:
    """A running Envoy."""

    url: str
    admin: str
    settings: EdgeSettings
    log: Path
    pid: int
    calls: Calls = field(default_factory=Calls)

    @property
    def target(self) -> str:
        """Host and port, as gRPC takes them."""
        return self.url.partition("://")[2]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as sockets take them."""
        host, _, port = self.target.partition(":")
        return host, int(port)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A TCP connection to the edge, for what no client library sends."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def stat(self, name: str) -> int:
        """Returns one of Envoy's counters or gauges; 0 if it does not exist yet."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"{self.admin}/stats", params={"filter": f"^{name}$"})).text
        return int(text.rpartition(": ")[2] or 0)

    async def has_keys(self) -> None:
        """Waits until Envoy has fetched the keys of tokens."""

        async def fetched() -> bool:
            return await self.stat("http.edge.jwt_authn.jwks_fetch_success") > 0

        await eventually(fetched, 10)

    def access_log(self) -> list[dict[str, Any]]:
        """Returns the entries of the access log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    async def logged(self, part: str, entries: int) -> list[dict[str, Any]]:
        """Waits for so many entries of the access log whose path has this part: Envoy writes them a little later."""

        def matching() -> list[dict[str, Any]]:
            return [entry for entry in self.access_log() if part in (entry["path"] or "")]

        await eventually(lambda: len(matching()) >= entries, 5)
        return matching()


Rewrites = Mapping[str, str]
"""Replacements in Envoy's configuration, mostly to shorten a time. Each text to replace must occur exactly once."""


@contextmanager
def envoy(settings: EdgeSettings, *options: str, rewrites: Rewrites | None = None) -> Iterator[Edge]:
    """Runs Envoy on free ports until the end of the block.

    Args:
        settings: Its settings; `files` must be a folder that can be written to. It listens on loopback, or on all
            addresses if the settings say `[::]`.
        options: More options of Envoy's command line.
        rewrites: Replacements in its configuration.
    """
    listen = "[::]:0" if settings.listen.startswith("[::]") else "127.0.0.1:0"
    # The listener for metrics must know the admin port.
    admin_port = free_ports(1)[0] if settings.metrics_port else 0
    bootstrap = write(replace(settings, listen=listen, admin_port=admin_port))
    for old, new in (rewrites or {}).items():
        text = bootstrap.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        bootstrap.write_text(text.replace(old, new))
    log, admin_file = settings.files / "log", settings.files / "admin"
    command = [
        *(str(envoy_binary()), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart", *options),
        *("-l", "warning", "--file-flush-interval-msec", "50", "--admin-address-path", str(admin_file)),
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            admin = f"http://{_wait_for(process, log, admin_file.read_text)}"
            port = _wait_for(process, log, lambda: _port(admin))
            scheme = "https" if settings.tls else "http"
            yield Edge(f"{scheme}://127.0.0.1:{port}", admin, settings, log, process.pid)
        finally:
            process.terminate()
            process.wait(10)


def _port(admin: str) -> str:
    """Returns the port of the shop, or an empty string while Envoy is not ready."""
    statuses = httpx.get(f"{admin}/listeners?format=json").json()["listener_statuses"]
    ports = {each["name"]: str(each["local_address"]["socket_address"]["port_value"]) for each in statuses}
    return ports["edge"] if httpx.get(f"{admin}/ready").status_code == 200 else ""


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, read: Callable[[], str]) -> str:
    """Waits for a text that is not empty, while the process runs."""
    for _ in range(200):
        with suppress(OSError, httpx.HTTPError, LookupError):
            if found := read():
                return found
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    raise AssertionError(f"Envoy did not start: {log.read_text()}")


@asynccontextmanager
async def edge(*options: str, rewrites: Rewrites | None = None, jwks: str = "", **settings: Any) -> AsyncIterator[Edge]:
    """Runs the edge before services that echo, until the end of the block.

    Args:
        options: More options of Envoy's command line.
        rewrites: Replacements in its configuration.
        jwks: The keys of tokens that the sidecar has. Envoy has them when the block begins.
        settings: Fields of EdgeSettings that differ.
    """
    async with echo_services(jwks) as services:
        with scratch() as folder:
            wanted = EdgeSettings(
                files=folder,
                product=f"127.0.0.1:{services.product}",
                order=f"localhost:{services.order}",
                sse_http_port=services.sse_http,
                sse_grpc_port=services.sse_grpc,
            )
            running = envoy(replace(wanted, **settings), *options, rewrites=rewrites)
            # In a thread: before Envoy is ready it checks the services' health, and they run in this event loop.
            started = await asyncio.to_thread(running.__enter__)
            try:
                started.calls = services.calls
                if jwks:
                    await started.has_keys()
                yield started
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)


@contextmanager
def scratch() -> Iterator[Path]:
    """Makes a folder that is deleted at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="edge-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def edge_fixture(rewrites: Rewrites | None = None, **settings: Any) -> Any:
    """Returns a fixture: one edge for the whole module. The arguments are those of `edge`."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def running() -> AsyncIterator[Edge]:
        async with edge(rewrites=rewrites, **settings) as started:
            yield started

    return running


def http_fixture(*versions: str) -> Any:
    """Returns a fixture: an HTTP client of the module's fixture `shop`.

    Args:
        versions: `HTTP/1.1` or `HTTP/2`. Each test runs once for each of them; HTTP/1.1 by default.
    """

    @pytest_asyncio.fixture(scope="module", loop_scope="module", params=versions or None)
    async def client(shop: Edge, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
        http2 = getattr(request, "param", "") == "HTTP/2"
        async with httpx.AsyncClient(base_url=shop.url, timeout=10, http1=not http2, http2=http2) as opened:
            yield opened

    return client
