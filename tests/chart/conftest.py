"""Fixtures of the chart's tests. They need no cluster."""

import pytest

from tests.chart import tools


@pytest.fixture(scope="session", autouse=True)
def helm() -> None:
    tools.require(tools.helm)


@pytest.fixture(scope="session")
def kubeconform() -> None:
    tools.require(tools.kubeconform)
    tools.require(tools.schemas)
    tools.require(tools.crds)
