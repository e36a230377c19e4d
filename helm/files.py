"""Copies files into the chart's files/: the edge's configuration from `envoy/`, and values.yaml for its defaults.

They are copies because Flux drops symbolic links. `--check` changes nothing and fails if a copy differs.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from local.edge import SOURCE

CHART = Path(__file__).parent / "shopping-cart"
FOLDER = CHART / "files" / "envoy"


def copies() -> Iterator[tuple[Path, Path]]:
    """Yields each source with the path of its copy."""
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:  # an older checkout had Python there
            yield path, FOLDER / path.relative_to(SOURCE)
    yield CHART / "values.yaml", CHART / "files" / "values.yaml"


def differences() -> list[str]:
    """Returns one line for each copy that is missing, differs, or has no source."""
    wanted = dict(copies())
    found = [
        f"{copy.relative_to(CHART)} differs from {source.parent.name}/{source.name}"
        for source, copy in wanted.items()
        if not copy.is_file() or copy.is_symlink() or copy.read_bytes() != source.read_bytes()
    ]
    extra = {path for path in FOLDER.rglob("*") if path.is_file()} - set(wanted.values())
    return found + [f"{path.relative_to(CHART)} has no source" for path in sorted(extra)]


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Copy envoy/ and values.yaml into the chart's files.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a copy differs")
    if parser.parse_args().check:
        for line in differences():
            print(f"the chart's {line}: run `make generate`", file=sys.stderr)
        return bool(differences())
    shutil.rmtree(FOLDER, ignore_errors=True)
    for source, copy in copies():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
