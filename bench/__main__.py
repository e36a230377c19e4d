"""The benchmarks' command: `python -m bench auth|carts|compare|growth|profile|scaling|streams|telemetry`."""

import argparse
import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from bench import auth, carts, compare, growth, profile, scaling, streams, telemetry
from bench.files import TooFewFilesError
from bench.load import LoadError
from bench.report import ReportError
from local.children import ChildError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the shop.")
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", help="compare requests with an empty RPC, FastAPI and Go")
    comparison.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(compare.CASES))
    comparison.add_argument("--rounds", type=int, default=compare.ROUNDS)
    comparison.add_argument("--seconds", type=int, default=compare.SECONDS, help="seconds of each round")
    comparison.add_argument("--connections", type=int, default=compare.CONNECTIONS)
    growth_ = commands.add_parser("growth", help="compare a shop of 10,000 products and orders with one of 1,000,000")
    tokens = commands.add_parser("auth", help="measure what a token costs")
    tokens.add_argument("--rounds", type=int, default=auth.ROUNDS)
    tokens.add_argument("--seconds", type=int, default=auth.SECONDS, help="seconds of each round")
    observed = commands.add_parser("telemetry", help="measure what metrics, logs and traces cost")
    observed.add_argument("--rounds", type=int, default=telemetry.ROUNDS)
    observed.add_argument("--seconds", type=int, default=telemetry.SECONDS, help="seconds of each round")
    of_carts = commands.add_parser("carts", help="measure carts, their purge, and a rush for one product")
    of_carts.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(carts.MEASURES))
    scales = commands.add_parser("scaling", help="measure what a shop costs, and compute how far it grows")
    scales.add_argument("cases", nargs="*", metavar="PART", help=", ".join(scaling.PARTS))
    scales.add_argument("--quick", action="store_true", help="measure for a shorter time")
    for each in (comparison, growth_, tokens, observed, of_carts, scales):
        each.add_argument(
            "--write", type=Path, metavar="FILE", help="write the figures into a page of the documentation"
        )
    profiling = commands.add_parser("profile", help="make flame graphs of the processes under the load of a case")
    profiling.add_argument("case", choices=compare.CASES)
    watching = commands.add_parser("streams", help="measure thousands of browsers that follow orders")
    watching.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(streams.CASES))
    return parser


def _check(parser: argparse.ArgumentParser, given: Sequence[str], known: Collection[str]) -> None:
    if unknown := [case for case in given if case not in known]:
        parser.error(f"unknown case {unknown[0]!r}; choose from {', '.join(known)}")


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args()
    match arguments.command:
        case "streams":
            _check(parser, arguments.cases, streams.CASES)
            return asyncio.run(streams.run(arguments.cases))
        case "carts":
            _check(parser, arguments.cases, carts.MEASURES)
            if arguments.write and arguments.cases:
                parser.error("--write needs the figures of all cases: name none")
            return carts.carts(arguments.cases, arguments.write)
        case "auth":
            return auth.auth(rounds=arguments.rounds, seconds=arguments.seconds, write_to=arguments.write)
        case "telemetry":
            return telemetry.telemetry(rounds=arguments.rounds, seconds=arguments.seconds, write_to=arguments.write)
        case "growth":
            return growth.growth(write_to=arguments.write)
        case "scaling":
            _check(parser, arguments.cases, scaling.PARTS)
            if arguments.quick and arguments.write:
                parser.error("--quick is too short for --write")
            return scaling.scaling(arguments.cases, arguments.write, quick=arguments.quick)
        case "profile":
            return profile.profile(arguments.case)
        case _:
            return _compare(parser, arguments)


def _compare(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    _check(parser, arguments.cases, compare.CASES)
    if arguments.write and arguments.cases:
        parser.error("--write needs the figures of all cases: name none")
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
