"""What orders, carts and event streams see of a failover: each case is a row of the table, with its zeros."""

from collections.abc import Callable

import pytest

from tests.failover.postgres import Effect, Postgres
from tests.failover.row import Row
from tests.failover.world import World

FAULTS: dict[str, Callable[[Postgres], Effect]] = {
    "primary's pod deleted": Postgres.delete_primary,
    "primary killed with SIGKILL": Postgres.kill_primary,
    "switchover": Postgres.switch_over,
    "replica and its volume lost": Postgres.lose_replica,
}

AddRow = Callable[[Row], None]

# More than all the waits of a case. The first test installs everything.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("service", ["order", "product"])
async def test_database_fault(world: World, add_row: AddRow, service: str, fault: str) -> None:
    database = world.databases[service]
    await _case(world, add_row, f"{service}: {fault}", lambda: FAULTS[fault](database), database)


async def test_drain_of_the_gateways_nodes(world: World, add_row: AddRow) -> None:
    await _case(world, add_row, "nodes of the gateway drained", world.drain)


async def test_restart_of_each_deployment(world: World, add_row: AddRow) -> None:
    world.install_poolers()
    await _case(world, add_row, "each Deployment restarted, with Poolers from then on", world.restart)


async def test_restart_of_the_poolers(world: World, add_row: AddRow) -> None:
    world.use_poolers()
    await _case(world, add_row, "Poolers restarted", world.restart_poolers)


async def test_failover_behind_a_pooler(world: World, add_row: AddRow) -> None:
    world.use_poolers()
    database = world.databases["order"]
    await _case(world, add_row, "order: primary's pod deleted, with a Pooler", database.delete_primary, database)


async def _case(
    world: World, add_row: AddRow, name: str, fault: Callable[[], Effect], database: Postgres | None = None
) -> None:
    row, problems = await world.case(name, fault, database)
    add_row(row)
    row.check()
    assert problems == []
