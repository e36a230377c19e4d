"""The benchmarks' command: `python -m bench streams [CASE…]`."""

import asyncio
import sys

from bench import streams
from bench.files import TooFewFilesError
from local.children import ChildError

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["streams", *names] if set(names) <= set(streams.CASES):
            try:
                sys.exit(asyncio.run(streams.run(names)))
            except (ChildError, TooFewFilesError) as error:
                sys.exit(f"bench: {error}")
        case _:
            print(f"usage: python -m bench streams [{'|'.join(streams.CASES)}]…", file=sys.stderr)
            sys.exit(2)
