"""Fixtures of the tests that need a cluster: `make test-cluster`, with KUBECONFIG as kubectl takes it.

How images get there is the caller's business. IMAGE is the shop's (the chart's default otherwise), POSTGRES_IMAGE and
OLD_POSTGRES_IMAGE those of the tests' own databases, PREVIOUS_IMAGE that of the release before this one (IMAGE
otherwise). What a cluster lacks is skipped, with the reason printed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.kube import Namespace, namespace, require_cluster
from tests.support.release import Release, image_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            # More than all the waits of a test; those of its fixtures have bounds of their own.
            item.add_marker(pytest.mark.timeout(600, func_only=True))


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    require_cluster()


@pytest.fixture(scope="session")
def image() -> str:
    return image_of("shop")


@pytest.fixture(scope="session")
def previous_image(image: str) -> str:
    return os.environ.get("PREVIOUS_IMAGE") or image


@pytest.fixture(scope="session")
def postgres_image() -> str:
    return image_of("postgres")


@pytest.fixture(scope="session")
def old_postgres_image() -> str:
    """A PostgreSQL that is too old for the shop."""
    return os.environ.get("OLD_POSTGRES_IMAGE") or "postgres:16"


@pytest.fixture(scope="session")
def shared() -> Iterator[Namespace]:
    """The namespace of the shared release."""
    with namespace(f"shop-test-{uuid4().hex[:6]}") as made:
        yield made


@pytest.fixture
def own() -> Iterator[Namespace]:
    """A namespace of the test's own."""
    with namespace(f"shop-test-{uuid4().hex[:6]}") as made:
        yield made


@pytest.fixture(scope="session")
def shop(shared: Namespace, image: str) -> Release:
    """One release with the chart's defaults, in a `restricted` namespace, for all tests that leave it as it was."""
    release = Release(shared, image)
    release.install("--wait", "--timeout", "300s", timeout=310)
    return release


@pytest.fixture(scope="session")
def token_shop(image: str) -> Iterator[Release]:
    """A release that asks for tokens of its demo issuer. The demo moves no orders here: the tests do."""
    values = {"auth.mode": "jwt", "auth.demoIssuer.enabled": "true"}
    for place, which in enumerate(("MIN", "MAX")):
        # A number with a point is a text for `--set`. Every upgrade sets the values again.
        values |= {
            f"demo.extraEnv[{place}].name": f"SIMULATE_{which}_SECONDS",
            f"demo.extraEnv[{place}].value": "7200.0",
        }
    with namespace(f"shop-test-{uuid4().hex[:6]}") as own:
        release = Release(own, image, values=values)
        release.install("--wait", "--timeout", "300s", timeout=310)
        # Helm does not wait for Jobs, and some tests look at the whole catalogue.
        loading = ("job", "--selector", "app.kubernetes.io/component=demo-load")
        own.kubectl("wait", "--for=condition=complete", *loading, "--timeout=300s", timeout=310)
        yield release
