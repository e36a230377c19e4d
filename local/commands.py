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
from local.stop import Stop, Stopped, restore_default_signals
from runtime.config import ConfigError

COMMANDS = """\
REST, SSE, gRPC and gRPC-Web: {url}; product: localhost:{product}; order: localhost:{order}

list products:
  curl -s '{url}/api/v1/products?pageSize=3'
create a product:
  curl -s -X POST {url}/api/v1/products -H 'Content-Type: application/json' -d '{{"name": "Oak step stool", \
"category": "Home", "stock": 5, "price": {{"currencyCode": "EUR", "units": "79"}}}}'
place an order and follow its status:
  PRODUCT=$(curl -s '{url}/api/v1/products?pageSize=100&orderBy=price' | python3 -c \
'import json, sys; print(next(item["id"] for item in json.load(sys.stdin)["products"] if item["stock"] != "0"))')
  ORDER=$(curl -s -X POST {url}/api/v1/orders -H 'Content-Type: application/json' \
-d '{{"items": [{{"productId": "'$PRODUCT'", "quantity": 1}}]}}' | python3 -c \
'import json, sys; order = json.load(sys.stdin); print(order.get("id") or sys.exit(order["message"]))') \
&& curl -N "{url}/api/orders/stream?order_id=$ORDER"
gRPC:
  {grpcurl} -plaintext localhost:{port} list
"""


def up(settings: Settings) -> int:
    """Runs the shop until a signal. Returns the exit status."""
    started = time.monotonic()
    stop = Stop()
    shop = Shop(settings, lambda text: print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True), stop.sleep)
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
        print(f"Press Ctrl-C to stop. Data and logs are in {settings.state}")
        print("ready", flush=True)
        while True:
            stop.sleep(0.5)
            shop.check()
    except Stopped:
        with suppress(OSError):  # the terminal may be closed already
            print("\nstopping", flush=True)
        return 0
    finally:
        shop.stop()


def reset(settings: Settings) -> int:
    """Deletes what a shop has made, and nothing else: STATE_DIR may contain other files. Returns the exit status."""
    restore_default_signals()
    state = settings.state
    if not (state / LOCK).exists():
        print(f"there is no shop's data in {state}")
        return 0
    prepare(state)
    Shop(settings).acquire_lock()
    Postgres(state).remove()
    for folder in ("credentials", "envoy", "logs", "ticket-keys"):
        shutil.rmtree(state / folder, ignore_errors=True)
    for file in ("secrets.json", "secrets.tmp", LOCK):
        (state / file).unlink(missing_ok=True)
    with suppress(OSError):  # the folder has other files
        state.rmdir()
    print(f"deleted the shop's data in {state}")
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
