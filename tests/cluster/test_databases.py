"""Databases that are not the chart's: an own one, CloudNativePG's, and those that do not work."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.chart import tools
from tests.support.buyer import buy, sees
from tests.support.kube import CommandFailed, Namespace, Object, eventually, kubectl, namespace
from tests.support.postgres_pod import PASSWORD, ROLE, secret, start
from tests.support.release import Release, is_ready

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


async def test_an_own_database_is_used_by_whatever_keys_its_secret_has(shop: Release) -> None:
    assert [each["metadata"]["name"] for each in shop.namespace.get("statefulsets")] == []
    await buy(shop)
    shop.test()


@pytest.mark.parametrize("wrong", ["unreachable", "missing-key", "missing-secret", "too-old"])
async def test_a_database_that_does_not_work_replaces_no_good_pod(
    shop: Release, wrong: str, old_postgres_image: str
) -> None:
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
            "unreachable": "not ready: the database does not answer: failed to resolve host 'nowhere.invalid'",
            "too-old": "; 17 or newer is needed",
            "missing-key": f"couldn't find key {KEYS['username']} in Secret {place.name}/{wrong}",
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
        waiting: Object = status["state"].get("waiting", {})
        if waiting.get("reason") == "CreateContainerConfigError":
            return str(waiting["message"])
        if waiting:
            return ""
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
def test_a_wrong_value_fails_at_install_with_its_path(own: Namespace, image: str, value: str, complaint: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        Release(own, image).install("--set", value)
    assert complaint in str(failed.value)
    assert own.get("deployments") == []


@pytest.mark.timeout(700, func_only=True)
async def test_cloudnativepgs_secrets_are_taken_as_they_are(own: Namespace, image: str) -> None:
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
    psql = ("psql", "-At", "order", "-c", ask)
    assert own.execute(primary["metadata"]["name"], *psql, container="postgres") == "t\n"
