"""`order reconcile`: compares orders with reservations and carts, counts the changes that repair them, and makes them.

It takes the order database for the truth. So it refuses a database of another shop, an empty one, and more changes than
a restore is likely to cause, unless an option confirms them.
"""

import argparse
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import psycopg

from order.jobs.comparison import Change, Comparison
from order.jobs.ordered_carts import OrderedCarts
from order.jobs.repair import Repair, TooManyChanges
from order.jobs.report import Report
from order.pairing import Pairing
from order.product_calls import ProductCalls
from order.stock import SERVICE, ProductOutdated, Stock
from order.stock_client import StockClient
from order.store import OrderStore
from runtime.access.credential import Credential
from runtime.cli import CommandError
from runtime.client import channel
from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.errors import ApiError

MAX_UNFORCED_CHANGES = 10
"""Changes that are made without --force, however few orders there are."""

MAX_UNFORCED_SHARE = 0.1
"""The share of the orders that may change without --force."""

_CHECK = "is DATABASE_URL right, and is the backup restored?"

DESCRIPTION = """\
Compares all orders with all reservations and carts, and repairs the differences, after one of the two databases was
restored from a backup (docs/operations.md, Restoring a backup). The shop may run meanwhile. It counts the changes
first, and refuses, without changing anything:

  - an order database that does not belong to the product service's database, unless --adopt is given;
  - an order database without any order, unless --force is given;
  - more than 10 changes that are more than 10 % of the orders, unless --force is given.

It has the configuration of the order service. The exit status is 0 if nothing is left to do, 1 if the command refuses
or something is left to do (in a dry run, every finding), and 2 for wrong options or configuration.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command, as `add_options` describes them."""

    dry_run: bool = False
    force: bool = False
    adopt: bool = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Returns the options of a parsed command line."""
        return cls(dry_run=options.dry_run, force=options.force, adopt=options.adopt)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `reconcile`."""
    parser.add_argument("--dry-run", action="store_true", help="print the changes, and make none")
    parser.add_argument("--force", action="store_true", help="make all changes, however many")
    parser.add_argument(
        "--adopt", action="store_true", help="record that the two databases belong together from now on"
    )


class Reconciliation:
    """One run of the command."""

    def __init__(self, database: Database, stock: Stock, print_line: Callable[[str], None], options: Options) -> None:
        """Initializes the run.

        Args:
            database: The order database.
            stock: The product service.
            print_line: Called with each line for the terminal.
            options: The options of the command.
        """
        self._orders = OrderStore(database)
        self._carts = OrderedCarts(database)
        self._stock = stock
        self._pairing = Pairing(database, stock)
        self._print = print_line
        self._options = options

    async def run(self) -> None:
        """Compares the databases, and repairs them unless this is a dry run.

        Raises:
            CommandError: The command refuses, or something is left to do.
            ApiError: One of the databases or the product service is unavailable.
        """
        await self._check_databases()
        plan = await self._plan()
        refusal = self._refusal(plan)
        if self._options.dry_run:
            plan.summarise()
            if plan.changes:
                raise CommandError(
                    f"this was a dry run; run the command with --force, since {refusal}"
                    if refusal
                    else "this was a dry run; run the command without --dry-run to make these changes"
                )
            _check_unrepaired(plan)
        elif refusal:
            raise CommandError(f"refused: {refusal}; list them with --dry-run, or make them with --force")
        else:
            await self._repair(plan)

    async def _check_databases(self) -> None:
        """Raises CommandError if the databases do not belong together, or if the orders are missing."""
        if not self._options.adopt:
            try:
                problem = await self._pairing.check(read_only=True)
            except ProductOutdated:
                problem = "the product service is older than this command, and does not know its database's id"
            if problem:
                raise CommandError(
                    f"refused: {problem}; {_CHECK} If the two databases belong together, confirm it with --adopt"
                )
        if not self._options.force and not await self._orders.has_orders():
            async for reservations in self._stock.list_taken():
                if reservations:
                    raise CommandError(
                        f"refused: the order database has no orders, but there are reservations; {_CHECK}"
                        " --force releases all of their stock"
                    )

    async def _plan(self) -> Report:
        """Returns the changes to make. A dry run prints them."""
        plan = Report(self._print if self._options.dry_run else _print_nothing, planned=True)
        async for finding in Comparison(self._orders, self._stock, self._carts, plan.counts).findings():
            plan.add(finding)
        return plan

    def _refusal(self, plan: Report) -> str:
        """Returns why there are too many changes; empty if there are not."""
        if self._options.force or plan.changes <= max(MAX_UNFORCED_CHANGES, MAX_UNFORCED_SHARE * plan.compared):
            return ""
        changes = ", ".join(f"{plan.counts[change]} {change}" for change in Change if plan.counts[change])
        return (
            f"{plan.changes} of {plan.compared} orders would change ({changes}),"
            f" which is more than {MAX_UNFORCED_SHARE:.0%}"
        )

    async def _repair(self, plan: Report) -> None:
        """Makes the changes. Compares the databases again, since the shop has gone on."""
        report = Report(self._print, planned=False)
        max_changes = plan.changes + max(MAX_UNFORCED_CHANGES, plan.changes // 10)
        repair = Repair(self._orders, self._stock, self._carts, report, max_changes=max_changes)
        try:
            await repair.apply_all(Comparison(self._orders, self._stock, self._carts, report.counts).findings())
        except TooManyChanges:
            report.summarise()
            raise CommandError(
                f"stopped after {report.changes} changes, because only {plan.changes} were planned; {_CHECK}"
            ) from None
        if self._options.adopt:
            await self._pairing.replace()
        else:
            await self._pairing.check()
        await self._orders.expedite_parked()
        report.summarise()
        _check_unrepaired(report)


def _print_nothing(line: str) -> None:
    pass


def _check_unrepaired(report: Report) -> None:
    if report.unrepaired:
        raise CommandError(f"orders that need attention: {report.unrepaired}; see above")


async def reconcile(config: DatabaseConfig, product_target: str, credential: Credential, options: Options) -> None:
    """Runs the command on a database and a product service.

    Args:
        config: The database.
        product_target: The product service.
        credential: What it asks for.
        options: The options of the command.

    Raises:
        CommandError: The command refuses, something is left to do, or the database or product is unavailable.
    """
    database = Database(config, "order reconcile")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open()
        to_product = channel(product_target, idempotent=[SERVICE])
        stack.push_async_callback(to_product.close)
        stock = StockClient(to_product, ProductCalls(credential))
        try:
            await Reconciliation(database, stock, print, options).run()
        except ApiError as error:
            raise CommandError(f"{error.text}; run the command again") from None
        except psycopg.Error as error:
            raise CommandError(f"order database error: {' '.join(str(error).split())}; {_CHECK}") from None
