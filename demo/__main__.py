"""The command line of the demo."""

import asyncio
import logging
import os
import sys
from argparse import ArgumentParser, Namespace

import grpc
from aiohttp import web

from demo import issuer, tokens
from demo.buy import Buyer, summary
from demo.calls import Authorization
from demo.load import load as load_catalogue
from demo.signing_key import SigningKey, key_path, required_key_path
from demo.simulate import Pace, Simulator
from demo.tokens import DemoToken, TokenMaker
from runtime import cli, http
from runtime.access.config import TokenConfig
from runtime.client import channel, parse_target
from runtime.config import ConfigError, Env
from runtime.server import until_stopped

log = logging.getLogger("demo")

PRODUCT, ORDER = "dns:///localhost:50052", "dns:///localhost:50053"
"""Where the services of `make up` listen."""


async def load(_: Namespace) -> None:
    """Loads the demo catalogue into the product service of PRODUCT_TARGET."""
    env = Env(os.environ)
    address = parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", PRODUCT))
    async with channel(address, authorization(env)) as to_product:
        created, total = await load_catalogue(to_product)
    print(f"{created} of {total} demo products created")


async def buy(_: Namespace) -> None:
    """Buys through a cart of ORDER_TARGET, as a guest."""
    env = Env(os.environ)
    product = parse_target("PRODUCT_TARGET", env.text("PRODUCT_TARGET", PRODUCT))
    order = parse_target("ORDER_TARGET", env.text("ORDER_TARGET", ORDER))
    async with channel(product) as to_product, channel(order) as to_order:
        print(summary(await Buyer(to_product, to_order).buy()))


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
    address = parse_target("ORDER_TARGET", env.text("ORDER_TARGET", ORDER))
    order_pace = pace(env)
    async with channel(address, authorization(env)) as to_order:
        running = asyncio.create_task(Simulator(to_order, order_pace).run())
        stopped = asyncio.create_task(until_stopped())
        done, _pending = await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopped.cancel()
        if running in done:
            running.result()


def authorization(env: Env) -> list[grpc.aio.ClientInterceptor]:
    """Returns what makes calls those of staff, if ISSUER_KEY is set. Raises ConfigError if that is not possible."""
    if not (path := key_path(env)):
        return []
    maker = TokenMaker(SigningKey.read(path), TokenConfig.from_env(env))
    return [Authorization(DemoToken(maker).current)]


async def issue(_: Namespace) -> None:
    """Serves the public key of the issuer, and tokens of customers, until SIGTERM."""
    env = Env(os.environ)
    host, port = env.host("LISTEN_HOST", "0.0.0.0"), env.port("HTTP_PORT", issuer.PORT)  # noqa: S104 - its pod's address
    config = TokenConfig.from_env(env)
    key = SigningKey.read_or_make(required_key_path(env))
    runner = web.AppRunner(issuer.application(key, config), access_log=None)
    try:
        await http.listen(runner, host, port)
        log.warning("this issuer is for trying only: whoever reads its key is staff of the shop")
        log.info("issuer %s listens on port %d", config.issuer, port)
        await until_stopped()
    finally:
        await runner.cleanup()


def token_options(parser: ArgumentParser) -> None:
    """Adds the options of `demo token`."""
    parser.add_argument("--role", default=tokens.CUSTOMER, help="staff or customer (the default)")
    parser.add_argument("--sub", default="ada", help="whom the token is for (ada)")
    parser.add_argument("--ttl", default="1h", help="how long it is valid, as in 90s, 15m, 1h or 7d (1h)")


async def token(options: Namespace) -> None:
    """Prints a token."""
    env = Env(os.environ)
    ttl = tokens.parse_ttl(options.ttl)
    maker = TokenMaker(SigningKey.read(required_key_path(env)), TokenConfig.from_env(env))
    print(maker.make(options.sub, options.role, ttl))


async def jwks(_: Namespace) -> None:
    """Prints the public key of the issuer."""
    print(SigningKey.read_or_make(required_key_path(Env(os.environ))).jwks())


def main() -> int:
    """Runs the command line. Returns the exit status."""
    commands = {
        "load": cli.Command(run=load, summary="load the demo catalogue"),
        "buy": cli.Command(
            run=buy,
            summary="buy up to three products through a cart, as a guest",
            description="Puts up to three products into a new cart, and orders it as a guest. Prints the order.",
        ),
        "simulate": cli.Command(run=simulate, summary="process and deliver orders until SIGTERM"),
        "issuer": cli.Command(run=issue, summary="serve tokens for trying, and their key, until SIGTERM"),
        "token": cli.Command(run=token, summary="print a token for trying", add_options=token_options),
        "jwks": cli.Command(run=jwks, summary="print the public key of such tokens; make the key if there is none"),
    }
    return cli.main("demo", "The demo catalogue, a buyer, the fulfilment simulator, and tokens for trying.", commands)


if __name__ == "__main__":
    sys.exit(main())
