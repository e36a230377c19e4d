"""Databases that are not the chart's: an own one, CloudNativePG's, and those that do not work."""

import time
from collections.abc import Iterator
from functools import partial
from uuid import uuid4

import pytest

from tests.chart import tools
from tests.support.buyer import buy, sees, serves
from tests.support.eventually import eventually as comes_true
from tests.support.kube import CommandFailed, Namespace, eventually, kubectl, namespace
from tests.support.postgres_pod import PASSWORD, ROLE, psql, secret, start
from tests.support.release import Release, is_ready
from tests.support.rotation import files_have, patch, refresh_files

KEYS = {"host": "server", "port": "tcp", "username": "login", "password": "pass-phrase", "dbname": "name"}
"""The chart's names of keys, and those that the Secrets of these tests have."""


@pytest.fixture(scope="module")
def place() -> Iterator[Namespace]:
    with namespace(f"shop-test-{uuid4().hex[:6]}") as made:
        yield made


def credentials(host: str, database: str) -> dict[str, str]:
    values = {"host": host, "port": "5432", "username": ROLE, "password": PASSWORD, "dbname": database}
    return {KEYS[key]: value for key, value in values.items()}


@pytest.fixture(scope="module")
def shop(place: Namespace, image: str, postgres_image: str) -> Release:
    """A release on a PostgreSQL of the tests' own, with Secrets whose keys have other names."""
    start(place, "mine", postgres_image, "product", "orders")
    secret(place, "mine-product", credentials("mine", "product"))
    secret(place, "mine-order", credentials("mine", "orders"))
    values = {f"{service}.database.keys.{key}": name for service in ("product", "order") for key, name in KEYS.items()}
    values |= {f"{service}.database.existingSecret": f"mine-{service}" for service in ("product", "order")}
    release = Release(place, image, values={**values, "demo.enabled": "false"})
    release.install()
    release.until_ready()
    return release


async def test_external_database_works_with_any_secret_keys(shop: Release) -> None:
    assert [each["metadata"]["name"] for each in shop.namespace.get("statefulsets")] == []
    await buy(shop)
    shop.test()


async def test_rotated_password_needs_no_restart(shop: Release) -> None:
    """The worst case: sessions end before the kubelet has brought the new Secret to the pods.

    Calls fail until then, and succeed afterwards, in the same pods.
    """
    place, before = shop.namespace, _started(shop)
    password = "it's another secret"
    for service in ("product", "order"):
        patch(place, f"mine-{service}", KEYS["password"], password)
    role = f"ALTER ROLE {ROLE} PASSWORD '{password.replace(chr(39), 2 * chr(39))}'"
    psql(place, "mine", role, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")
    began = time.monotonic()
    # Where nobody got in, nobody is sent there: at once, and not after the half minute that an outage may last.
    eventually(lambda: not any(is_ready(pod) for pod in shop.pods("product")), 25, "product is not ready")
    refresh_files(shop, "product", "order")
    for service in ("product", "order"):
        eventually(partial(files_have, shop, service, password), 150, f"{service} has the new password")
    print(f"the new password came after {time.monotonic() - began:.0f} s")
    shop.until_ready(20)
    assert _started(shop) == before
    # The edge looks at the health by itself, a second later than the kubelet.
    await comes_true(lambda: serves(shop), 10)
    await buy(shop)


def _started(shop: Release) -> list[tuple[str, int]]:
    pods = [pod for component in ("product", "order") for pod in shop.pods(component)]
    return [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]


@pytest.mark.parametrize("wrong", ["unreachable", "missing-key", "missing-secret", "too-old"])
async def test_unusable_database_replaces_no_healthy_pod(shop: Release, wrong: str, old_postgres_image: str) -> None:
    """The new pod says why in one line and stays unready; the shop goes on with the old one."""
    place = shop.namespace
    keys = credentials("nowhere.invalid", "product")
    if wrong == "too-old":
        keys = credentials(_too_old(place, old_postgres_image), "product")
    if wrong == "missing-key":
        del keys[KEYS["username"]]
    if wrong != "missing-secret":
        secret(place, wrong, keys)
    bought = await buy(shop)
    [good] = [pod["metadata"]["uid"] for pod in shop.pods("product")]
    shop.upgrade("--set", f"product.database.existingSecret={wrong}")
    try:
        new = eventually(lambda: _other_pod(shop, good), 30, "a new pod is there")
        reason = {
            "unreachable": "not ready: the database is unavailable: failed to resolve host 'nowhere.invalid'",
            "too-old": "; 17 or newer is needed",
            "missing-key": f"references non-existent secret key: {KEYS['username']}",
            "missing-secret": f'secret "{wrong}" not found',
        }[wrong]
        said = eventually(
            lambda: complaint if reason in (complaint := _complaint(shop, new)) else "",
            60,
            f"the new pod says {reason}",
        )
        print(said)
        # Before it, a slow cluster may have had another.
        assert len([line for line in said.splitlines() if reason in line]) == 1, said
        assert PASSWORD not in said
        pod = place.one("pod", new)
        assert not is_ready(pod)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
        assert good in [pod["metadata"]["uid"] for pod in shop.pods("product")]
        assert await sees(shop, bought)
        await buy(shop)
    finally:
        shop.upgrade()
        shop.rolled_out("product")
    assert [pod["metadata"]["uid"] for pod in shop.pods("product")] == [good]


def _other_pod(shop: Release, good: str) -> str:
    """The name of the product's pod that is not the good one."""
    others = [pod["metadata"]["name"] for pod in shop.pods("product") if pod["metadata"]["uid"] != good]
    return str(others[0]) if others else ""


def _complaint(shop: Release, pod: str) -> str:
    """What a pod that is not ready says: the kubelet's word where it could not start, and else its log's."""
    for status in shop.namespace.one("pod", pod)["status"].get("containerStatuses", []):
        if "waiting" in status["state"]:
            events = shop.namespace.get("events")
            mine = [each for each in events if each["involvedObject"]["name"] == pod]
            return "\n".join({each["message"] for each in mine if each["reason"] == "FailedMount"})
    return "\n".join(line for line in shop.namespace.logs(pod).splitlines() if "not ready" in line)


def _too_old(place: Namespace, image: str) -> str:
    """The host of a PostgreSQL that is too old."""
    try:
        start(place, "old", image, "product")
    except CommandFailed as failed:
        waiting = place.one("pod", "old")["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting")
        if waiting:
            pytest.skip(f"the cluster has no image {image} of an older PostgreSQL: {waiting.get('reason')}")
        raise failed
    return "old"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("product.replicas=three", "'/product/replicas': got string, want integer"),
        ("order.database.existingsecret=mine", "additional properties 'existingsecret' not allowed"),
    ],
)
def test_wrong_value_fails_at_install_with_its_path(own: Namespace, image: str, value: str, complaint: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        Release(own, image).install("--set", value)
    assert complaint in str(failed.value)
    assert own.get("deployments") == []


@pytest.mark.timeout(700, func_only=True)
async def test_cloudnativepg_secrets_work_unchanged(own: Namespace, image: str) -> None:
    """With certificates verified in full, three instances of each, and every commit on two."""
    try:
        kubectl("get", "crd", "clusters.postgresql.cnpg.io")
    except CommandFailed:
        pytest.skip("the cluster has no CloudNativePG operator")
    folder = tools.ROOT / "k8s" / "cnpg"
    for service in ("product", "order"):
        own.kubectl("apply", "--filename", str(folder / f"{service}-db.yaml"))
    release = Release(own, image)
    release.install("--values", str(folder / "values-cnpg.yaml"))
    # The services wait for their databases; nobody has to put things in order.
    own.kubectl(
        "wait", "--for=condition=Ready", "cluster/product-db", "cluster/order-db", "--timeout=300s", timeout=310
    )
    release.until_ready(120)
    bought = await buy(release)
    release.test()
    assert await sees(release, bought)
    [primary] = own.get("pods", "cnpg.io/cluster=order-db,cnpg.io/instanceRole=primary")
    ask = (
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE usename = 'order' AND application_name LIKE 'order%'"
    )
    ask_primary = ("psql", "-At", "order", "-c")
    assert own.execute(primary["metadata"]["name"], *ask_primary, ask, container="postgres") == "t\n"
    # A new password: the operator gives it to the role, and the shop reads it.
    password = uuid4().hex
    patch(own, "order-db-app", "password", password)
    refresh_files(release, "order")
    eventually(partial(files_have, release, "order", password), 150, "order has the new password")
    await buy(release)
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'order'"
    assert int(own.execute(primary["metadata"]["name"], *ask_primary, end, container="postgres")) > 0
    await buy(release)
    assert await sees(release, bought)
