"""The command line of a process: sub-commands with `--help`, logging, the event loop and exit statuses."""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from runtime import logs
from runtime.config import ConfigError, Env
from runtime.schema import MigrationError
from runtime.telemetry.config import TelemetryConfig


class CommandError(Exception):
    """A command failed. The message is one line for the terminal."""


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Adds nothing."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command of a program."""

    run: Callable[[argparse.Namespace], Coroutine[Any, Any, None]]
    summary: str
    """One line for the list of sub-commands."""
    description: str = ""
    """The text of the sub-command's own `--help`; empty: the summary."""
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options


def main(
    program: str,
    description: str,
    commands: Mapping[str, Command],
    *,
    default: str | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parses the command line and runs the sub-command that it names.

    Args:
        program: The name of the console script, as in `order`.
        description: The first paragraph of `--help`.
        commands: The sub-commands by name.
        default: The sub-command that runs if none is named.
        arguments: The command line without the program's name; by default that of this process.

    Returns:
        The exit status: 0 for success, 1 if the command failed, 2 for wrong arguments or configuration.
    """
    options = _parser(program, description, commands, default).parse_args(arguments)
    name = options.command or default
    assert name is not None  # argparse requires a command if there is no default
    return run(program, lambda: commands[name].run(options))


def run(program: str, command: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs one command on a new event loop, with logging set up from the environment. Returns the exit status."""
    try:
        telemetry = TelemetryConfig.from_env(Env(os.environ))
        logs.setup(program, telemetry.log_levels, telemetry.log_format)
        # The objects made by imports live as long as the process. A garbage collection that visits them stops all
        # calls for 11 ms.
        gc.collect()
        gc.freeze()
        # uvloop costs half as much CPU time as asyncio's own event loop.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(command())
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (CommandError, MigrationError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser(
    program: str, description: str, commands: Mapping[str, Command], default: str | None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=default is None)
    for name, command in commands.items():
        summary = f"{command.summary} (the default)" if name == default else command.summary
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=command.description or command.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_options(subparser)
    return parser
