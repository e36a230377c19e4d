"""The commands of the local shop, and what they print."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from local.children import ChildError
from local.examples import examples
from local.postgres import Postgres
from local.settings import Settings, prepare
from local.shop import LOCK, Shop
from local.stop import Stop, Stopped, restore_default_signals
from local.tokens import FOLDER as TOKENS
from local.tokens import maker_variables
from runtime.config import ConfigError


def up(settings: Settings) -> int:
    """Runs the shop until a signal. Returns the exit status."""
    started = time.monotonic()
    stop = Stop()
    shop = Shop(settings, lambda text: print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True), stop.sleep)
    try:
        stop.listen()
        shop.start()
        print()
        print(examples(settings))
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
    for folder in ("credentials", "envoy", TOKENS, "logs", "ticket-keys"):
        shutil.rmtree(state / folder, ignore_errors=True)
    for file in ("secrets.json", "secrets.tmp", LOCK):
        (state / file).unlink(missing_ok=True)
    with suppress(OSError):  # the folder has other files
        state.rmdir()
    print(f"deleted the shop's data in {state}")
    return 0


def token(settings: Settings) -> int:
    """Prints a token that the running shop accepts. Returns the exit status."""
    restore_default_signals()
    inherited = {name: value for name, value in settings.environment.items() if not name.startswith("AUTH_")}
    variables = {**inherited, **maker_variables(settings.state, settings.state / LOCK)}
    options = [f"--{name.lower()}={inherited[name]}" for name in ("ROLE", "SUB", "TTL") if inherited.get(name)]
    command = [sys.executable, "-m", "demo", "token", *options]
    return subprocess.run(command, env=variables, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 1 if the shop fails, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="shop", description="The whole shop on this machine, without a cluster.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers.add_parser("up", help="run the shop until Ctrl-C").set_defaults(run=up)
    subparsers.add_parser("reset", help="delete the data of `shop up`").set_defaults(run=reset)
    subparsers.add_parser("token", help="print a token for trying (ROLE, SUB, TTL)").set_defaults(run=token)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(Settings.from_env(os.environ))
    except (ConfigError, ChildError, OSError) as error:
        print(f"shop: {error}", file=sys.stderr)
        return 1
    return status
