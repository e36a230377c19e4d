"""The commands of the local shop, and what they print."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from local.children import ChildError
from local.postgres import Postgres
from local.settings import REPOSITORY, Settings, prepare
from local.shop import LOCK, Shop
from local.stop import Stop, Stopped, end_at_signals
from runtime.config import ConfigError

COMMANDS = """\
REST, SSE, gRPC and gRPC-Web on {url}; product on localhost:{product}, order on localhost:{order}

the catalogue:
  curl -s '{url}/api/v1/products?pageSize=3'
a product of your own:
  curl -s -X POST {url}/api/v1/products -H 'Content-Type: application/json' -d '{{"name": "Oak step stool", \
"category": "Home", "stock": 5, "price": {{"currencyCode": "EUR", "units": "79"}}}}'
an order, and its status, live:
  PRODUCT=$(curl -s '{url}/api/v1/products?pageSize=100&orderBy=price' | python3 -c \
'import json, sys; print(next(each["id"] for each in json.load(sys.stdin)["products"] if each["stock"] != "0"))')
  ORDER=$(curl -s -X POST {url}/api/v1/orders -H 'Content-Type: application/json' \
-d '{{"items": [{{"productId": "'$PRODUCT'", "quantity": 1}}]}}' | python3 -c \
'import json, sys; answer = json.load(sys.stdin); print(answer.get("id") or sys.exit(answer["message"]))') \
&& curl -N "{url}/api/orders/stream?order_id=$ORDER"
gRPC:
  {grpcurl} -plaintext localhost:{port} list
"""


def up(settings: Settings) -> int:
    began = time.monotonic()
    stop = Stop()
    shop = Shop(settings, lambda text: print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True), stop.sleep)
    try:
        stop.listen()
        shop.start()
        grpcurl = os.path.relpath(REPOSITORY / ".venv" / "bin" / "grpcurl")
        print()
        print(
            COMMANDS.format(
                url=settings.url,
                port=settings.port,
                product=settings.product_port,
                order=settings.order_port,
                grpcurl=grpcurl,
            )
        )
        print(f"Ctrl-C stops it; data and logs are in {settings.state}")
        print("ready", flush=True)
        while True:
            stop.sleep(0.5)
            shop.check()
    except Stopped:
        with suppress(OSError):  # the terminal may be gone already
            print("\nstopping", flush=True)
        return 0
    finally:
        shop.stop()


def reset(settings: Settings) -> int:
    """Removes what a shop has made, and nothing else: STATE_DIR may be anybody's folder."""
    end_at_signals()
    state = settings.state
    if not (state / LOCK).exists():
        print(f"no shop has run on {state}")
        return 0
    prepare(state)
    Shop(settings).hold()
    Postgres(state).remove()
    for folder in ("envoy", "logs"):
        shutil.rmtree(state / folder, ignore_errors=True)
    for file in ("secrets.json", LOCK):
        (state / file).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        state.rmdir()
    print(f"removed the shop's data from {state}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 1 if the shop fails, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="shop", description="The whole shop on this machine, without a cluster.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers.add_parser("up", help="run the shop until Ctrl-C").set_defaults(run=up)
    subparsers.add_parser("reset", help="delete the data of `shop up`").set_defaults(run=reset)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(Settings.from_env(os.environ))
    except (ConfigError, ChildError, OSError) as error:
        print(f"shop: {error}", file=sys.stderr)
        return 1
    return status
