"""Fixtures of the chart's tests. They need no cluster."""

import pytest

from tests.chart import tools


@pytest.fixture(scope="session", autouse=True)
def helm() -> None:
    tools.have(tools.helm)


@pytest.fixture(scope="session")
def kubeconform() -> None:
    tools.have(tools.kubeconform)
    tools.have(tools.schemas)
