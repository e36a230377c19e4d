"""An upgrade from the release before this one, and the way back, under load and on tables of a size."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.previous import NoRelease, archive, previous
from tests.support.buyer import buy, sees
from tests.support.kube import Namespace, eventually
from tests.support.postgres_pod import PASSWORD, ROLE, psql, psql_apart, secret, start
from tests.support.release import COMPONENTS, Release
from tests.support.traffic import Outcome, traffic

DATABASES = {"product": "product", "order": "orders"}
"""Databases of the tests' own, by service: an upgrade of the chart may replace the pods of its own ones."""

ROWS = 300_000

READ_SECONDS = 60
"""Seconds that a transaction lasts which has read the tables: a change of one has to wait for it."""

FILL = {
    "product": f"""
        INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock, star,
            image_uri, create_time)
        SELECT gen_random_uuid(), 'Filler ' || n, 'filler-' || n, 'FILLER-' || n, '', 'In the way of a migration',
            'Filler ' || n % 50, 'EUR', n * 10000::bigint, 5, 4, '', now() - n * interval '1 minute'
        FROM generate_series(1, {ROWS}) AS n;
        ANALYZE
        """,
    "order": f"""
        WITH made AS (
            INSERT INTO orders (id, number, status, items, currency, total_micros, customer_email, create_time)
            SELECT gen_random_uuid(), 'OLD-' || n, 'RECEIVED', jsonb_build_array(jsonb_build_object(
                'product_id', gen_random_uuid(), 'quantity', 1, 'name', 'Filler', 'price_micros', 1000000)),
                'EUR', 1000000, 'filler' || n % 1000 || '@example.com', now() - n * interval '1 minute'
            FROM generate_series(1, {ROWS}) AS n RETURNING id, create_time
        )
        INSERT INTO order_event (order_id, version, status, create_time)
        SELECT id, 1, 'RECEIVED', create_time FROM made;
        ANALYZE
        """,
}

TABLES = {"product": ("product", "reservation"), "order": ("orders", "order_event", "outbox")}


@pytest.fixture
def previous_chart(tmp_path: Path) -> Path:
    try:
        files = archive(previous(), "helm/shopping-cart", "envoy")
    except NoRelease as error:
        pytest.skip(str(error))
    subprocess.run(["tar", "--extract", "--directory", str(tmp_path)], input=files, check=True)
    return tmp_path / "helm" / "shopping-cart"


@pytest.fixture
def installed(own: Namespace, image: str, previous_image: str, previous_chart: Path, postgres_image: str) -> Release:
    """The release before this one, with ROWS rows in each large table."""
    start(own, "mine", postgres_image, *DATABASES.values())
    values = {"demo.enabled": "false"}
    for service, database in DATABASES.items():
        keys = {"host": "mine", "port": "5432", "username": ROLE, "password": PASSWORD, "dbname": database}
        secret(own, f"mine-{service}", keys)
        values[f"{service}.database.existingSecret"] = f"mine-{service}"
    shop = Release(own, image, values=values)
    shop.install(chart=previous_chart, image=previous_image)
    shop.until_ready()
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: psql(own, "mine", FILL[each], database=DATABASES[each]), DATABASES))
    print(f"{ROWS} rows in each large table after {time.monotonic() - began:.0f} s")
    return shop


@pytest.mark.timeout(2200, func_only=True)
async def test_upgrade_and_rollback_keep_calls_and_data(installed: Release) -> None:
    shop = installed
    with traffic(shop) as outcome:
        first = await buy(shop)
        for service in DATABASES:
            read_for_long(shop, service)
        old = _pods(shop)
        # The annotations have every pod replaced, also where the two releases have the same image.
        shop.upgrade(*_annotated("new"), "--wait", "--timeout", "280s", timeout=290)
        _rolled_out(shop)
        new = _pods(shop)
    assert not old & new
    _well("upgrade", outcome)
    assert await sees(shop, first)
    second = await buy(shop)
    with traffic(shop) as outcome:
        shop.rollback(1, "--wait", "--timeout", "200s")
        _rolled_out(shop)
        assert not new & _pods(shop)
    _well("rollback", outcome)
    assert await sees(shop, first)
    assert await sees(shop, second)
    for service, database in DATABASES.items():
        assert int(psql(shop.namespace, "mine", f"SELECT count(*) FROM {TABLES[service][0]}", database=database)) > ROWS
    shop.test()


def read_for_long(shop: Release, service: str) -> None:
    """Somebody's report: begins a transaction that has read every large table and stays open."""
    place, database = shop.namespace, DATABASES[service]
    counts = [f"SELECT count(*) FROM {table}" for table in TABLES[service]]
    psql_apart(place, "mine", "BEGIN", *counts, f"SELECT pg_sleep({READ_SECONDS})", "COMMIT", database=database)
    ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"
    eventually(lambda: int(psql(place, "mine", ask, database=database)) == 1, 60, f"{service}'s tables are read")


def _annotated(note: str) -> list[str]:
    return [part for each in COMPONENTS for part in ("--set", f"{each}.podAnnotations.test/upgrade={note}")]


def _rolled_out(shop: Release) -> None:
    for component in COMPONENTS:
        shop.rolled_out(component, 90)


def _pods(shop: Release) -> set[str]:
    return {pod["metadata"]["name"] for component in COMPONENTS for pod in shop.pods(component)}


def _well(what: str, outcome: Outcome) -> None:
    print(what, outcome.summary())
    assert outcome.failures == []
    assert outcome.wrong == []
