"""How a command of the shop begins and ends: logs first, and bad configuration is one line and exit status 2."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

from runtime import logs
from runtime.config import ConfigError, Env, TelemetryConfig
from runtime.schema import MigrationError


class CommandError(Exception):
    """A command cannot do what it is for; the message is one line for people."""


Command = Callable[[], Coroutine[Any, Any, None]]


def main(program: str, commands: Mapping[str, Command], arguments: list[str], *, default: str = "") -> int:
    """Runs the command that the arguments name, as in `reconcile --dry-run`; answers the exit status."""
    name = " ".join(arguments) or default
    if name not in commands:
        print(f"usage: python -m {program} {'|'.join(commands)}", file=sys.stderr)
        return 2
    try:
        telling = TelemetryConfig.from_env(Env(os.environ))
        logs.setup(program, telling.log_level, telling.log_format)
        # What the modules have made stays for ever: to look through it for garbage would stop all calls for 11 ms now
        # and then.
        gc.collect()
        gc.freeze()
        # Half the cost of the event loop's own.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(commands[name]())
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (CommandError, MigrationError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
