"""The command line of the demo."""

import asyncio
import os
import sys
from argparse import Namespace

from demo.load import load as load_catalogue
from demo.simulate import Pace, Simulator
from runtime import cli
from runtime.client import channel, parse_target
from runtime.config import ConfigError, Env
from runtime.server import until_stopped


async def load(_: Namespace) -> None:
    """Loads the demo catalogue into the product service of PRODUCT_TARGET."""
    env = Env(os.environ)
    address = parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052"))
    async with channel(address) as to_product:
        created, total = await load_catalogue(to_product)
    print(f"{created} of {total} demo products created")


def pace(env: Env) -> Pace:
    """Reads how long orders take. Raises ConfigError if the values do not fit."""
    shortest = env.seconds("SIMULATE_MIN_SECONDS", 10, 0, 86_400)
    longest = env.seconds("SIMULATE_MAX_SECONDS", 30, 0, 86_400)
    if longest < shortest:
        raise ConfigError("SIMULATE_MAX_SECONDS must not be less than SIMULATE_MIN_SECONDS")
    return Pace(shortest, longest)


async def simulate(_: Namespace) -> None:
    """Moves the orders of ORDER_TARGET on until SIGTERM."""
    env = Env(os.environ)
    address = parse_target("ORDER_TARGET", env.text("ORDER_TARGET", "dns:///localhost:50053"))
    order_pace = pace(env)
    async with channel(address) as to_order:
        running = asyncio.create_task(Simulator(to_order, order_pace).run())
        stopped = asyncio.create_task(until_stopped())
        done, _pending = await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopped.cancel()
        if running in done:
            running.result()


def main() -> int:
    """Runs the command line. Returns the exit status."""
    commands = {
        "load": cli.Command(run=load, summary="load the demo catalogue"),
        "simulate": cli.Command(run=simulate, summary="process and deliver orders until SIGTERM"),
    }
    return cli.main("demo", "The demo catalogue and the fulfilment simulator.", commands)


if __name__ == "__main__":
    sys.exit(main())
