"""Fixtures of the chart's tests. They need no cluster."""

import os
from collections.abc import Callable

import pytest

from tests.chart import tools


@pytest.fixture(scope="session", autouse=True)
def helm() -> None:
    _have(tools.helm)


@pytest.fixture(scope="session")
def kubeconform() -> None:
    _have(tools.kubeconform)
    _have(tools.schemas)


def _have(tool: Callable[[], object]) -> None:
    """A developer's machine may lack a tool; CI must not, but for Go and what is built with it."""
    try:
        tool()
    except tools.Missing as missing:
        if os.environ.get("CI") and not isinstance(missing, tools.NoGo):
            raise
        pytest.skip(str(missing))
