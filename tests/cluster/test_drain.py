"""Drains and rotated passwords, while clients read, order, and follow orders live: two replicas of each component.

A cluster's DNS makes the difference: where answers are kept for 30 seconds, as is usual, those who go by it do not know
for half a minute that a pod was replaced.
"""

import time
from collections.abc import Iterator
from functools import partial
from uuid import uuid4

import pytest

from tests.support.kube import eventually, namespace
from tests.support.release import COMPONENTS, Release
from tests.support.rotation import end_sessions, files_have, refresh_files, role_accepts
from tests.support.traffic import Outcome, traffic

REPLICAS = 2

STALE = 35.0
"""Seconds for which DNS answers may be older than the last change."""


@pytest.fixture(scope="module")
def pair(image: str) -> Iterator[Release]:
    """A release with two replicas of each component, on the bundled databases."""
    with namespace(f"shop-test-{uuid4().hex[:6]}") as place:
        values = {f"{each}.replicas": str(REPLICAS) for each in COMPONENTS}
        release = Release(place, image, values={**values, "demo.enabled": "false"})
        release.install("--wait", "--timeout", "180s", timeout=190)
        yield release


@pytest.mark.timeout(900, func_only=True)
def test_evicting_two_pods_fails_no_call(pair: Release) -> None:
    """As fast as the disruption budget lets: of each component the second goes as soon as the first is replaced."""
    with traffic(pair, readers=4, writers=4, pause=0.05) as outcome:
        for component in COMPONENTS:
            began = time.monotonic()
            for name in [pod["metadata"]["name"] for pod in pair.pods(component)]:
                eventually(partial(pair.namespace.evict, name), 150, f"{name} may go")
                print(f"{name} evicted after {time.monotonic() - began:.1f} s")
        time.sleep(STALE)
        for component in COMPONENTS:
            pair.rolled_out(component, 120)
    _well(outcome)
    assert outcome.failures == []
    assert outcome.connections > outcome.watched, "no stream was cut: no gateway went"


@pytest.mark.timeout(500, func_only=True)
def test_new_passwords_restart_nothing_and_fail_no_call(pair: Release) -> None:
    """The server gives its role the new password, and the services read it: no session ends for it.

    Where sessions end afterwards, the next ones have it.
    """
    before = _uids(pair)
    passwords = {service: f"it's {uuid4().hex} \"$`" for service in ("product", "order")}
    with traffic(pair) as outcome:
        began = time.monotonic()
        pair.upgrade(
            *(part for key, value in passwords.items() for part in ("--set-string", f"{key}.database.password={value}"))
        )
        refresh_files(pair, *passwords, *(f"{service}-db" for service in passwords))
        for service, password in passwords.items():
            eventually(partial(role_accepts, pair, service, password), 180, "the role has it")
            eventually(partial(files_have, pair, service, password), 180, "the pods have it")
        print(f"known everywhere after {time.monotonic() - began:.0f} s")
        for service in passwords:
            assert end_sessions(pair, service) >= REPLICAS
        time.sleep(10)
    _well(outcome)
    assert len(outcome.failures) <= 1, outcome.failures
    assert _uids(pair) == before
    logs = [
        pair.namespace.logs(pod["metadata"]["name"]) for each in ("product-db", "order-db") for pod in pair.pods(each)
    ]
    assert all("has the password that the Secret has now" in log for log in logs)
    assert not any(password in log for log in logs for password in passwords.values())


def _uids(release: Release) -> set[str]:
    """Of all pods that run, with the restarts of their containers."""
    pods = [pod for each in (*COMPONENTS, "product-db", "order-db") for pod in release.pods(each)]
    return {
        f"{pod['metadata']['name']} {pod['metadata']['uid']} {status['name']} {status['restartCount']}"
        for pod in pods
        for status in pod["status"]["containerStatuses"]
    }


def _well(outcome: Outcome) -> None:
    print(outcome.summary())
    assert outcome.wrong == []
    assert outcome.watched >= 10
    assert outcome.calls > 500
