"""The services on roles that may use their rows and nothing else, made with the SQL that the documentation prints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runtime.migrate import migrate
from runtime.schema import MigrationError, migrations
from tests.support.database import REPOSITORY, DatabaseServer
from tests.support.order import order_shop
from tests.support.product import product_shop

PASSWORD = "choose one"


@asynccontextmanager
async def app_role(postgres: DatabaseServer, service: str) -> AsyncIterator[tuple[str, str]]:
    """The connection strings of a database's owner, and of the role that serves from it."""
    section = (REPOSITORY / "docs" / "configuration.md").read_text().split("### Least privilege\n")[1]
    statements = section.split("```sql\n")[1].split("```")[0]
    with postgres.database() as owner:
        name, role = str(conninfo_to_dict(owner)["dbname"]), f"{service}_app"
        # The owner of the tests' empty databases is product.
        for here, there in (("product_app", role), ("DATABASE product ", f"DATABASE {name} ")):
            statements = statements.replace(here, there)
        superuser = make_conninfo(postgres.postgres.conninfo(name), dbname=name)
        try:
            with psycopg.connect(superuser, autocommit=True) as connection:
                connection.execute(statements.encode())
            yield owner, make_conninfo(owner, user=role, password=PASSWORD)
        finally:
            with psycopg.connect(superuser, autocommit=True) as connection:
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def test_services_work_with_their_rows_alone(postgres: DatabaseServer) -> None:
    async with app_role(postgres, "product") as (product_owner, product), app_role(postgres, "order") as (owner, order):
        await migrate(product_owner, REPOSITORY / "product" / "migrations")
        await migrate(owner, REPOSITORY / "order" / "migrations")
        async with product_shop(product) as products, order_shop(order, products.address) as orders:
            bought = await products.create(stock=3)
            placed = await orders.create({bought.id: 2})
            for status in ("PROCESSED", "CANCELLED"):
                await orders.move(status, placed.id)
            assert (await orders.get(placed.id)).number == placed.number


async def test_role_with_rows_alone_changes_no_schema(postgres: DatabaseServer, tmp_path: Path) -> None:
    """Its `migrate` has nothing to do where the owner's has been, and fails in one line where there is something."""
    directory = REPOSITORY / "order" / "migrations"
    for path in directory.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    async with app_role(postgres, "order") as (owner, order):
        with pytest.raises(MigrationError, match=r"^permission denied for schema public$"):
            await migrate(order, tmp_path)
        await migrate(owner, tmp_path)
        assert await migrate(order, tmp_path) == []
        (tmp_path / f"{len(migrations(directory)) + 1:04}_more.sql").write_text(
            "ALTER TABLE orders ADD COLUMN more int;"
        )
        with pytest.raises(MigrationError, match=r"^migration \d+_more: must be owner of table orders$"):
            await migrate(order, tmp_path)
