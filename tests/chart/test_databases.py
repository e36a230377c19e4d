"""Databases: your own and the bundled ones, their credentials and volumes."""

import hashlib
from typing import Any

import pytest

from tests.chart import tools
from tests.chart.pods import containers, pods, spec, variables
from tests.chart.sets import SETS

OWN_SECRETS = "auth.internal.existingSecret=internal,auth.tickets.existingSecret=tickets"
"""Without these, each render generates new ones."""

BOTH = "product.database.existingSecret=one,order.database.existingSecret=one"


def test_host_value_replaces_secret_key() -> None:
    """Some providers hand out a user name and a password only."""
    values = {
        "existingSecret": "app",
        "host": "db.example.com",
        "port": "5433",
        "dbname": "shop",
        "sslmode": "verify-full",
    }
    sets = ",".join(f"product.database.{key}={value}" for key, value in values.items())
    for name in ("Deployment/shop-shopping-cart-product", "Job/shop-shopping-cart-product-migrate"):
        found = spec(name, "--set", sets)
        env = variables(found["containers"][0])
        assert (env["PGHOST"], env["PGPORT"], env["PGDATABASE"]) == ("db.example.com", "5433", "shop")
        assert "PGUSER" not in env
        # The certificate of a public authority needs no file.
        assert env["PGSSLROOTCERT"] == "system"
        [volume] = (each for each in found["volumes"] if each["name"] == "credentials")
        assert {each["path"] for each in volume["secret"]["items"]} == {"username", "password"}


@pytest.mark.parametrize(
    "sets",
    [
        BOTH,
        f"{BOTH},product.database.host=db,order.database.host=db",
        "product.database.existingSecret=one,order.database.existingSecret=two"
        ",product.database.host=db,order.database.host=db,product.database.dbname=x,order.database.dbname=x",
    ],
)
def test_shared_database_is_rejected(sets: str) -> None:
    done = tools.run("template", "shop", str(tools.CHART), "--set", sets)
    assert done.returncode != 0
    assert "product.database and order.database are the same database" in done.stderr


def test_one_secret_with_two_databases_is_accepted() -> None:
    assert tools.objects("--set", f"{BOTH},order.database.keys.dbname=order-dbname")


def stores(*arguments: str) -> dict[str, Any]:
    return {
        each["metadata"]["name"]: each["spec"] for each in tools.objects(*arguments) if each["kind"] == "StatefulSet"
    }


def test_existing_claim_replaces_claim_template() -> None:
    sets = "postgresql.storage.existingClaims.order=mine,postgresql.storage.className=-"
    found = stores("--set", sets)
    order, product = found["shop-shopping-cart-order-db"], found["shop-shopping-cart-product-db"]
    assert "volumeClaimTemplates" not in order
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in order["template"]["spec"]["volumes"]
    assert product["volumeClaimTemplates"][0]["spec"]["storageClassName"] == ""


def test_disabled_storage_uses_empty_dir() -> None:
    for each in stores(*SETS["minimal"]).values():
        assert "volumeClaimTemplates" not in each
        assert {"name": "data", "emptyDir": {}} in each["template"]["spec"]["volumes"]


def test_claim_retention_policy_is_set() -> None:
    for each in stores(*SETS["options"]).values():
        assert each["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete"}


def test_existing_secret_removes_bundled_database() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in tools.objects(*SETS["cnpg"])}
    assert not {kind for kind, name in names if name.endswith("-db") and kind != "NetworkPolicy"}
    assert ("Secret", "shop-shopping-cart-product-db") not in names


def test_given_secrets_render_reproducibly() -> None:
    """Argo CD renders repeatedly, and would see a difference each time."""
    passwords = "product.database.password=one,order.database.password=two"
    given = ("template", "shop", str(tools.CHART), "--set", f"{passwords},{OWN_SECRETS}")
    one, two = (tools.run(*given) for _ in range(2))
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout


def test_superuser_password_is_in_no_object() -> None:
    """Not with given passwords either: it must not be derived from them."""
    rendered = tools.objects("--set", "product.database.password=one,order.database.password=two")
    secrets = [
        each["data"].keys() for each in rendered if each["kind"] == "Secret" and "-db" in each["metadata"]["name"]
    ]
    assert secrets == 2 * [{"host", "port", "username", "dbname", "password"}]
    servers = [each for each in rendered if each["kind"] == "StatefulSet"]
    assert len(servers) == 2
    for server in servers:
        names = {each["name"] for each in server["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert names == {"PGDATA", "POSTGRES_USER", "POSTGRES_DB"}


def test_password_is_in_its_secret_only() -> None:
    """Not even as a hash: an unsalted one can be guessed, and would restart the pod when the password changes."""
    one, two = (
        tools.objects("--set", f"product.database.password={name},order.database.password={name},{OWN_SECRETS}")
        for name in ("one", "two")
    )
    changed = [here["kind"] for here, there in zip(one, two, strict=True) if here != there]
    assert changed == ["Secret", "Secret"]


def test_credentials_are_files_not_variables() -> None:
    """Files change with the Secret while a pod runs; variables do not."""
    for pod, _, pod_spec in pods(*SETS["cnpg"]):
        for container in containers(pod_spec):
            assert "valueFrom" not in str(container.get("env", [])), pod
            assert "subPath" not in str(container.get("volumeMounts", [])), pod
    for _, _, pod_spec in pods():
        mounts = [each for container in containers(pod_spec) for each in container.get("volumeMounts", [])]
        assert all("subPath" not in each for each in mounts if each["name"] == "credentials")


def credential_files(sets: str, pod: str = "Deployment/shop-shopping-cart-product") -> dict[str, str]:
    """Returns the Secret's keys by the names of their files."""
    [secret] = [each["secret"] for each in spec(pod, "--set", sets)["volumes"] if each["name"] == "credentials"]
    assert secret["secretName"] == "mine"
    return {each["path"]: each["key"] for each in secret["items"]}


def test_secret_keys_follow_values() -> None:
    found = credential_files("product.database.existingSecret=mine,product.database.keys.password=pass-phrase")
    assert found == {
        "host": "host",
        "port": "port",
        "username": "username",
        "password": "pass-phrase",
        "dbname": "dbname",
    }


def test_empty_secret_key_is_omitted() -> None:
    found = credential_files("product.database.existingSecret=mine,product.database.keys.port=")
    assert found.keys() == {"host", "username", "password", "dbname"}


def test_extra_env_replaces_file_of_own_secret() -> None:
    sets = "product.database.existingSecret=mine,product.extraEnv[0].name=PGHOST,product.extraEnv[0].value=proxy"
    assert credential_files(sets).keys() == {"port", "username", "password", "dbname"}


def test_scripts_of_bundled_databases_are_unchanged() -> None:
    """A change of them restarts the bundled databases with the next upgrade, and calls fail meanwhile.

    Change the digest together with a line in CHANGELOG.md that says so.
    """
    folder = tools.CHART / "files" / "postgresql"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()
    assert digest == "19d8a16608943603679def8d84f2e52c4e432d66f2291c6fb366c646fb76ab1b"
