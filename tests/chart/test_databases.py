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


OWN = "product.database.existingSecret=one,order.database.existingSecret=two"


@pytest.mark.parametrize("service", ["product", "order"])
def test_pooler_is_for_the_service_only(service: str) -> None:
    """A migration needs a session, which a pooler in transaction mode does not give."""
    sets = ("--set", f"{OWN},{service}.database.pooler.host=pooler,{service}.database.pooler.port=6432")
    found = variables(spec(f"Deployment/shop-shopping-cart-{service}", *sets)["containers"][0])
    assert found["DATABASE_POOLER_URL"] == "host=pooler port=6432"
    migration = variables(spec(f"Job/shop-shopping-cart-{service}-migrate", *sets)["containers"][0])
    assert "DATABASE_POOLER_URL" not in migration


def test_replicas_are_for_the_service_only() -> None:
    sets = ("--set", f"{OWN},product.database.readOnly.host=replicas,product.database.readOnly.maxLag=3")
    found = variables(spec("Deployment/shop-shopping-cart-product", *sets)["containers"][0])
    assert found["DATABASE_READ_URL"] == "host=replicas port=5432"
    assert (found["DATABASE_READ_POOL_SIZE"], found["DATABASE_READ_MAX_LAG"]) == ("6", "3")
    migration = variables(spec("Job/shop-shopping-cart-product-migrate", *sets)["containers"][0])
    assert not {each for each in migration if each.startswith("DATABASE_READ")}


def egress(name: str, *sets: str) -> list[tuple[int, Any]]:
    """Returns the ports, each with its peers, that a policy lets pods connect to; without those for DNS."""
    [policy] = [
        each
        for each in tools.objects(*sets)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == f"shop-shopping-cart-{name}"
    ]
    rules = [(each["ports"][0]["port"], each.get("to")) for each in policy["spec"]["egress"]]
    return [rule for rule in rules if rule[0] != 53]


def test_policies_admit_pooler_and_replicas_elsewhere() -> None:
    """A rule that would only repeat that of the database is left out."""
    near = ("--values", "k8s/cnpg/values-cnpg.yaml", "--values", "k8s/cnpg/values-pooler.yaml")
    database = (5432, [{"podSelector": {"matchLabels": {"cnpg.io/cluster": "product-db"}}}])
    assert egress("product", *near) == [database]
    sets = "product.database.pooler.port=6432,product.database.readOnly.host=replicas"
    far = ("--set", f"{sets},product.database.readOnly.to[0].ipBlock.cidr=192.0.2.0/24")
    assert egress("product", *near, *far) == [
        database,
        (6432, database[1]),
        (5432, [{"ipBlock": {"cidr": "192.0.2.0/24"}}]),
    ]
    assert egress("product-migrate", *near, *far) == [database]


@pytest.mark.parametrize(
    "key",
    [f"{service}.database.{key}" for service in ("product", "order") for key in ("host", "dbname", "pooler.host")]
    + ["product.database.readOnly.host"],
)
def test_servers_of_bundled_database_are_rejected(key: str) -> None:
    done = tools.run("template", "shop", str(tools.CHART), "--set", f"{key}=elsewhere")
    assert done.returncode != 0
    assert f"{key} has no effect with the bundled database" in done.stderr


def test_only_public_files_of_authorities_are_mounted() -> None:
    """The Secret of an authority may have its private key, as CloudNativePG's `…-ca` does."""
    sets = f"auth.mode=jwt,auth.issuer=https://login,auth.audience=shop,auth.ca.secretName=ca,demo.enabled=false,{OWN}"
    found = []
    for database in ("product", "order"):
        sets += f",{database}.database.ca.secretName={database}-ca,{database}.database.ca.key=root.pem"
    for pod, _, pod_spec in pods("--set", f"{sets},auth.jwks.secretName=keys"):
        for volume in pod_spec.get("volumes", []):
            if volume["name"] in {"ca", "issuer-ca", "jwks"}:
                found.append((pod, volume["name"]))
                file = {"ca": "root.pem", "issuer-ca": "ca.crt", "jwks": "jwks.json"}[volume["name"]]
                assert volume["secret"]["items"] == [{"key": file, "path": file}], found[-1]
    assert {name for _, name in found} == {"ca", "issuer-ca", "jwks"}
    assert len([name for _, name in found if name == "ca"]) == 4, "two services, and their migrations"


def test_scripts_of_bundled_databases_are_unchanged() -> None:
    """A change of them restarts the bundled databases with the next upgrade, and calls fail meanwhile.

    Change the digest together with a line in CHANGELOG.md that says so.
    """
    folder = tools.CHART / "files" / "postgresql"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()
    assert digest == "19d8a16608943603679def8d84f2e52c4e432d66f2291c6fb366c646fb76ab1b"
