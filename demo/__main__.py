"""`python -m demo load` loads the demo catalogue; `python -m demo simulate` fulfils orders."""

import asyncio
import os
import sys

from demo.load import load as load_catalogue
from demo.simulate import Pace, Simulator
from runtime.client import channel, target
from runtime.config import ConfigError, Env
from runtime.process import main
from runtime.server import until_stopped


async def load() -> None:
    env = Env(os.environ)
    address = target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", "dns:///localhost:50052"))
    async with channel(address) as to_product:
        created, total = await load_catalogue(to_product)
    print(f"{created} of {total} demo products created")


def pace(env: Env) -> Pace:
    shortest = env.seconds("SIMULATE_MIN_SECONDS", 10, 0, 86_400)
    longest = env.seconds("SIMULATE_MAX_SECONDS", 30, 0, 86_400)
    if longest < shortest:
        raise ConfigError("SIMULATE_MAX_SECONDS must not be less than SIMULATE_MIN_SECONDS")
    return Pace(shortest, longest)


async def simulate() -> None:
    env = Env(os.environ)
    address = target("ORDER_TARGET", env.text("ORDER_TARGET", "dns:///localhost:50053"))
    speed = pace(env)
    async with channel(address) as to_order:
        running = asyncio.create_task(Simulator(to_order, speed).run())
        stopped = asyncio.create_task(until_stopped())
        done, _ = await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopped.cancel()
        if running in done:
            running.result()


if __name__ == "__main__":
    sys.exit(main("demo", {"load": load, "simulate": simulate}, sys.argv[1:]))
