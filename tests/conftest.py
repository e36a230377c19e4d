"""Fixtures that all suites share: a real PostgreSQL with a clone of its schema for each test, and the whole shop."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from local import settings as local_settings
from local.settings import free_ports
from tests.support.database import DatabaseServer
from tests.support.rest import Rest
from tests.support.shop import RunningShop, run_shop

# On a busy machine an example may take long.
settings.register_profile("shop", deadline=None)
settings.load_profile("shop")

MIN_FREE_MEMORY = 2 * 1024**3
"""Bytes that must be free in /dev/shm for the tests' databases."""


def pytest_configure() -> None:
    """Gives each worker its own ports: two workers could find the same free port before one of them uses it."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        number, workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        local_settings.PORTS = local_settings.PORTS[number::workers]


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "tls.key", "-out", "tls.crt"]
    subprocess.run([*made, *more], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """One server for the whole run. Its data is in memory if there is enough.

    A clone has 300 files and each test makes one or two clones. On a disk, new files are slow after many were deleted.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MIN_FREE_MEMORY
    with (
        tempfile.TemporaryDirectory(prefix="shop-tests-", dir=memory if roomy else None) as folder,
        DatabaseServer(_enterable(Path(folder))).running() as server,
    ):
        yield server


def _enterable(folder: Path) -> Path:
    """Lets all users enter a folder: if we are root, the server runs as another user."""
    folder.chmod(0o755)
    return folder


@pytest.fixture
def empty_database(postgres: DatabaseServer) -> Iterator[str]:
    with postgres.database() as conninfo:
        yield conninfo


@pytest.fixture
def product_database(postgres: DatabaseServer) -> Iterator[str]:
    with postgres.database("product") as conninfo:
        yield conninfo


@pytest.fixture
def order_database(postgres: DatabaseServer) -> Iterator[str]:
    with postgres.database("order") as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """One whole shop for the run, without the demo, so that only the tests move their orders."""
    with run_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.fixture(scope="session")
def shop_with_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """Another one, with AUTH_MODE=jwt and tokens for trying."""
    with run_shop(tmp_path_factory.mktemp("shop-with-tokens"), {"AUTH_MODE": "jwt"}) as running:
        yield running


@pytest.fixture(scope="session")
def measured_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """Another one, with TELEMETRY=1: its processes serve metrics."""
    with run_shop(tmp_path_factory.mktemp("measured-shop"), {"TELEMETRY": "1"}) as running:
        yield running


@pytest.fixture
def shop_url(shop: RunningShop) -> str:
    return shop.url


@pytest.fixture
async def rest(shop: RunningShop) -> AsyncIterator[Rest]:
    async with httpx.AsyncClient(base_url=shop.url, timeout=30) as http:
        yield Rest(http)
