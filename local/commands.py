"""The commands of `python -m local`, and what they say."""

import os
import shutil
import sys
import time
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


def main(arguments: list[str]) -> int:
    commands = {"up": up, "reset": reset}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"usage: python -m local {'|'.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](Settings.from_env(os.environ))
    except (ConfigError, ChildError, OSError) as error:
        print(f"shop: {error}", file=sys.stderr)
        return 1
