"""The benchmarks' command: `python -m bench compare|growth|profile|streams`."""

import argparse
import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from bench import compare, growth, profile, streams
from bench.files import TooFewFilesError
from bench.load import LoadError
from bench.report import ReportError
from local.children import ChildError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the shop.")
    commands = parser.add_subparsers(dest="command", required=True)
    beside = commands.add_parser("compare", help="requests beside those of an empty RPC, FastAPI and Go")
    beside.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(compare.CASES))
    beside.add_argument("--rounds", type=int, default=compare.ROUNDS)
    beside.add_argument("--seconds", type=int, default=compare.SECONDS, help="of each round")
    beside.add_argument("--connections", type=int, default=compare.CONNECTIONS)
    grown = commands.add_parser("growth", help="a shop of 10,000 products and orders beside one of 1,000,000")
    for each in (beside, grown):
        each.add_argument(
            "--write", type=Path, metavar="FILE", help="puts the figures into a page of the documentation"
        )
    one = commands.add_parser("profile", help="flame graphs of the processes under the load of a case")
    one.add_argument("case", choices=compare.CASES)
    live = commands.add_parser("streams", help="thousands of browsers that follow orders")
    live.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(streams.CASES))
    return parser


def _check(parser: argparse.ArgumentParser, given: Sequence[str], known: Collection[str]) -> None:
    if unknown := [case for case in given if case not in known]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(known)}")


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    match arguments.command:
        case "streams":
            _check(parser, arguments.cases, streams.CASES)
            return asyncio.run(streams.run(arguments.cases))
        case "growth":
            return growth.growth(write_to=arguments.write)
        case "profile":
            return profile.profile(arguments.case)
    _check(parser, arguments.cases, compare.CASES)
    if arguments.write and arguments.cases:
        parser.error("--write takes the figures of all cases")
    return compare.compare(
        arguments.cases,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        connections=arguments.connections,
        write_to=arguments.write,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ChildError, TooFewFilesError, LoadError, ReportError) as error:
        sys.exit(f"bench: {error}")
