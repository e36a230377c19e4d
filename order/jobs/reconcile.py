"""`reconcile`: compares all orders with all reservations, counts what it would change, and then changes it.

What it takes for the truth is the order database that it is given. So it refuses one that is not this shop's, one that
is empty, and more changes than a restore is likely to cause, unless people say that it is right.
"""

import argparse
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import psycopg

from order.jobs.comparison import CHANGES, Comparison, TooManyChanges
from order.pairing import Pairing
from order.stock import SERVICE, ProductOlder
from order.stock_client import StockClient
from order.store import OrderStore
from runtime.cli import CommandError
from runtime.client import channel
from runtime.config import DatabaseConfig
from runtime.database import Database
from runtime.errors import ApiError

HANDFUL = 10
"""So many changes are always made."""

SHARE = 0.1
"""The share of what is compared that may change without --force."""

_CHECK = "is DATABASE_URL right, and is the backup in its place?"

DESCRIPTION = """\
Compares all orders with all reservations and repairs what differs, after one of the two databases was restored from a
backup (docs/operations.md, Restoring a backup). The shop may run meanwhile. It first counts what it would change, and
refuses, without changing anything:

  - an order database that does not belong to the product service's database, unless --adopt is given;
  - an order database without any order, unless --force is given;
  - more than 10 changes that are more than 10 % of what is compared, unless --force is given.

It has the configuration of the order service. The exit status is 0 where all is well then, 1 where it refuses or where
something is left to do (in a dry run, everything that it found), and 2 for wrong options or configuration.
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
    parser.add_argument("--dry-run", action="store_true", help="print what would be changed, and change nothing")
    parser.add_argument("--force", action="store_true", help="make all changes, however many they are")
    parser.add_argument(
        "--adopt", action="store_true", help="record that the two databases belong together from now on"
    )


class Reconciliation:
    def __init__(
        self, orders: OrderStore, stock: StockClient, pairing: Pairing, say: Callable[[str], None], options: Options
    ) -> None:
        """`say` gets one line for each finding, and a summary."""
        self._orders = orders
        self._stock = stock
        self._pairing = pairing
        self._say = say
        self._options = options

    async def run(self) -> None:
        """Raises CommandError where it refuses, and where something is left to be done."""
        await self._check_databases()
        dry_run = self._options.dry_run
        counted = Comparison(self._orders, self._stock, self._say if dry_run else _silent, dry_run=True)
        await counted.run()
        if dry_run:
            counted.summarise()
        refusal = self._refusal(counted)
        if refusal and not dry_run:
            raise CommandError(f"refused: {refusal}; see which with --dry-run, and change them with --force")
        if dry_run:
            if counted.changes:
                raise CommandError(
                    f"this was a dry run; it is repaired with --force, since {refusal}"
                    if refusal
                    else "this was a dry run; without --dry-run it is repaired"
                )
            _check_left(counted)
            return
        await self._repair(counted)

    async def _check_databases(self) -> None:
        """Refuses databases whose orders say nothing of these reservations."""
        if not self._options.adopt:
            try:
                problem = await self._pairing.check(read_only=True)
            except ProductOlder:
                problem = "the product service is older than this command, and cannot say which database it has"
            if problem:
                raise CommandError(f"refused: {problem}; {_CHECK} If the two belong together, say so with --adopt")
        if not self._options.force and not await self._orders.any():
            async for reservations in self._stock.taken():
                if reservations:
                    raise CommandError(
                        f"refused: the order database has no orders, and there are reservations; {_CHECK}"
                        " All of their stock is released with --force"
                    )

    def _refusal(self, counted: Comparison) -> str:
        """Why so many changes are not made; empty where they are."""
        if self._options.force or counted.changes <= max(HANDFUL, SHARE * counted.compared):
            return ""
        what = ", ".join(f"{counted.found[each]} {each}" for each in CHANGES if counted.found[each])
        return f"{counted.changes} of {counted.compared} orders would change ({what}), which is more than {SHARE:.0%}"

    async def _repair(self, counted: Comparison) -> None:
        """Changes what was counted. It is compared anew: the shop has gone on."""
        most = counted.changes + max(HANDFUL, counted.changes // 10)
        repair = Comparison(self._orders, self._stock, self._say, dry_run=False, most_changes=most)
        try:
            await repair.run()
        except TooManyChanges:
            repair.summarise()
            raise CommandError(
                f"stopped after {repair.changes} changes: only {counted.changes} were counted before; {_CHECK}"
            ) from None
        if self._options.adopt:
            await self._pairing.replace()
        else:
            await self._pairing.check()
        await self._orders.retell()
        repair.summarise()
        _check_left(repair)


def _silent(line: str) -> None:
    pass


def _check_left(comparison: Comparison) -> None:
    if comparison.left:
        raise CommandError(f"people have to look after {comparison.left} orders; see above")


async def reconcile(config: DatabaseConfig, product_target: str, options: Options) -> None:
    database = Database(config, "order reconcile")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open()
        to_product = channel(product_target, idempotent=[SERVICE])
        stack.push_async_callback(to_product.close)
        stock = StockClient(to_product)
        try:
            await Reconciliation(OrderStore(database), stock, Pairing(database, stock), print, options).run()
        except ApiError as error:
            raise CommandError(f"{error.text}; run it again") from None
        except psycopg.Error as error:
            raise CommandError(f"the order database says: {' '.join(str(error).split())}; {_CHECK}") from None
