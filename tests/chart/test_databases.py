"""Where the data is: databases of one's own, and the volumes of the bundled ones."""

from typing import Any

import pytest

from tests.chart import tools
from tests.chart.sets import SETS
from tests.chart.test_pods import spec, variables

BOTH = "product.database.existingSecret=one,order.database.existingSecret=one"


def test_an_address_beside_a_secret_that_has_none() -> None:
    """As of services that hand out a user's name and password only."""
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
        # A public authority's certificate is trusted without a file of one's own.
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
def test_one_database_for_both_services_is_refused(sets: str) -> None:
    done = tools.run("template", "shop", str(tools.CHART), "--set", sets)
    assert done.returncode != 0
    assert "product.database and order.database are the same database" in done.stderr


def test_one_secret_may_name_two_databases() -> None:
    assert tools.objects("--set", f"{BOTH},order.database.keys.dbname=order-dbname")


def stores(*arguments: str) -> dict[str, Any]:
    return {
        each["metadata"]["name"]: each["spec"] for each in tools.objects(*arguments) if each["kind"] == "StatefulSet"
    }


def test_storage_of_ones_own() -> None:
    sets = "postgresql.storage.existingClaims.order=mine,postgresql.storage.className=-"
    found = stores("--set", sets)
    order, product = found["shop-shopping-cart-order-db"], found["shop-shopping-cart-product-db"]
    assert "volumeClaimTemplates" not in order
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in order["template"]["spec"]["volumes"]
    assert product["volumeClaimTemplates"][0]["spec"]["storageClassName"] == ""


def test_a_database_without_storage() -> None:
    for each in stores(*SETS["minimal"]).values():
        assert "volumeClaimTemplates" not in each
        assert {"name": "data", "emptyDir": {}} in each["template"]["spec"]["volumes"]


def test_claims_can_go_with_the_release() -> None:
    for each in stores(*SETS["options"]).values():
        assert each["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete"}
