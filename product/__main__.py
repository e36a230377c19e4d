"""The command line of the product service."""

import os
import sys
from argparse import Namespace

from product.app import MIGRATIONS, NAME, serving
from product.config import Config
from runtime import cli
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


def main() -> int:
    """Runs the command line. Returns the exit status."""
    commands = {
        "serve": cli.Command(run=serve, summary="serve the catalogue and its stock until SIGTERM"),
        "migrate": cli.Command(run=migrate, summary="bring the database's schema up to date"),
    }
    return cli.main(NAME, "The product service of the shopping cart.", commands, default="serve")


if __name__ == "__main__":
    sys.exit(main())
