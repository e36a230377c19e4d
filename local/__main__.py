"""`python -m local up` runs the shop until Ctrl-C; `python -m local reset` throws away what it keeps."""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

from local.children import ChildError
from local.postgres import Postgres
from local.settings import REPOSITORY, Settings, prepare
from local.shop import LOCK, Shop
from runtime.config import ConfigError

COMMANDS = """\
REST, SSE, gRPC and gRPC-Web on {url}; product on localhost:{product}, order on localhost:{order}

the catalogue:
  curl -s '{url}/api/v1/products?pageSize=3'
a product of your own:
  curl -s -X POST {url}/api/v1/products -H 'Content-Type: application/json' -d '{{"name": "Oak step stool", \
"category": "Home", "stock": 5, "price": {{"currencyCode": "EUR", "units": "79"}}}}'
an order:
  PRODUCT=$(curl -s '{url}/api/v1/products?pageSize=1&orderBy=price' | sed 's/.*"id":"\\([^"]*\\)".*/\\1/')
  ORDER=$(curl -s -X POST {url}/api/v1/orders -H 'Content-Type: application/json' \
-d '{{"items": [{{"productId": "'$PRODUCT'", "quantity": 1}}]}}' | sed 's/^{{"id":"\\([^"]*\\)".*/\\1/')
its status, live:
  curl -N "{url}/api/orders/stream?order_id=$ORDER"
gRPC:
  {grpcurl} -plaintext localhost:{port} list
"""


class Stopped(BaseException):
    """Somebody asked the shop to end."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _until_told() -> None:
    """From here on, SIGINT and SIGTERM raise Stopped, once."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)


def _deaf() -> None:
    """A second Ctrl-C must not leave half of the processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def up(settings: Settings) -> int:
    began = time.monotonic()
    shop = Shop(settings, lambda text: print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True))
    try:
        _until_told()
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
            time.sleep(0.5)
            shop.check()
    except Stopped:
        with suppress(BrokenPipeError):  # the terminal may be gone already
            print("\nstopping", flush=True)
        return 0
    finally:
        _deaf()
        shop.stop()


def reset(settings: Settings) -> int:
    """Removes what a shop has made, and nothing else: STATE_DIR may be anybody's folder."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
