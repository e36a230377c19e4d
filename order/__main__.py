"""The command line of the order service."""

import os
import sys
from argparse import ArgumentParser, Namespace

from order.app import MIGRATIONS, NAME, serving
from order.config import Config, product_target
from order.jobs import reconcile as reconciliation
from runtime import cli
from runtime.access.caller_hash import caller_hash
from runtime.access.config import AccessConfig
from runtime.access.credential import Credential
from runtime.config import DatabaseConfig, Env
from runtime.credentials import ConnectionInfo
from runtime.migrate import migrate as apply_migrations
from runtime.server import until_stopped


async def serve(_: Namespace) -> None:
    """Serves until SIGTERM."""
    async with serving(Config.from_env(Env(os.environ))):
        await until_stopped()


async def migrate(_: Namespace) -> None:
    """Applies the migrations that the database lacks."""
    config = DatabaseConfig.from_env(Env(os.environ))
    await apply_migrations(ConnectionInfo(config, f"{NAME} migrate"), MIGRATIONS)


async def reconcile(options: Namespace) -> None:
    """Repairs what a restored database has left inconsistent."""
    env = Env(os.environ)
    database, credential = DatabaseConfig.from_env(env), Credential(AccessConfig.from_env(env))
    await reconciliation.reconcile(database, product_target(env), credential, reconciliation.Options.of(options))


async def print_caller_hash(options: Namespace) -> None:
    """Prints what stands for a caller in logs."""
    for secret in Credential(AccessConfig.from_env(Env(os.environ))).secrets:
        print(caller_hash(options.subject, secret))


def add_subject(parser: ArgumentParser) -> None:
    """Adds the argument of `caller-hash`."""
    parser.add_argument("subject", metavar="SUBJECT", help="the `sub` of the caller's token")


def main() -> int:
    """Runs the command line. Returns the exit status."""
    commands = {
        "serve": cli.Command(run=serve, summary="serve orders until SIGTERM"),
        "migrate": cli.Command(run=migrate, summary="bring the database's schema up to date"),
        "reconcile": cli.Command(
            run=reconcile,
            summary="repair what a restored database has left inconsistent",
            description=reconciliation.DESCRIPTION,
            add_options=reconciliation.add_options,
        ),
        "caller-hash": cli.Command(
            run=print_caller_hash,
            summary="print the hash that stands for a caller in logs",
            description=(
                "Prints the hash that stands for a caller in logs.\n\n"
                "The hash depends on the credential in INTERNAL_CREDENTIALS.\n"
                "While two credentials are accepted, the second line has the hash of the other one."
            ),
            add_options=add_subject,
        ),
    }
    return cli.main(NAME, "The order service of the shopping cart.", commands, default="serve")


if __name__ == "__main__":
    sys.exit(main())
