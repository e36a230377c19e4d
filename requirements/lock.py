"""Writes the locks of the requirements: every version with its hashes, and no index address.

    python requirements/lock.py [--check]

A lock has a digest of the requirements in pyproject.toml that it was made from, so `--check` needs no network.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from uv import find_uv_bin

HERE = Path(__file__).resolve().parent
PYPROJECT = HERE.parent / "pyproject.toml"
EXTRAS = {"runtime": [], "local": ["local"], "dev": ["dev"], "bench": ["bench"]}
BUILD = "build"
"""The lock of the tools that build packages from source. The lock of a package does not name its build tools."""
LOCKS = [BUILD, *EXTRAS]


def requirements() -> tuple[dict[str, Any], list[str]]:
    """Returns the `project` table of pyproject.toml, and the requirements of its build system."""
    found = tomllib.loads(PYPROJECT.read_text())
    return found["project"], found["build-system"]["requires"]


def header(name: str) -> str:
    """Returns the first line of a lock: what it was made from."""
    project, build = requirements()
    wanted = [project["requires-python"], project["dependencies"], project["optional-dependencies"]]
    if name == BUILD:
        wanted = [project["requires-python"], build]
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return f"# Made by `make lock` from pyproject.toml {digest}\n"


def lock(name: str) -> None:
    """Writes one lock. `name` is a key of EXTRAS, or BUILD."""
    target = HERE / f"{name}.txt"
    # Settings of this machine must not get into a file that others use.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    options = [
        "--no-config",
        "--no-emit-package=shopping-cart",
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--quiet",
    ]
    source, wanted = str(PYPROJECT), ""
    if name == BUILD:
        source, wanted = "-", "\n".join(requirements()[1])
    options += [f"--extra={extra}" for extra in EXTRAS.get(name, [])]
    subprocess.run(
        [find_uv_bin(), "pip", "compile", source, *options, "-o", str(target)],
        check=True,
        env=clean,
        input=wanted,
        text=True,
        stdout=subprocess.DEVNULL,
    )
    target.write_text(header(name) + target.read_text())


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the locks of the requirements.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a lock is out of date")
    if parser.parse_args().check:
        old = [name for name in LOCKS if not _text(name).startswith(header(name))]
        if old:
            print(f"requirements/{old[0]}.txt is older than pyproject.toml: run `make lock`", file=sys.stderr)
        return 1 if old else 0
    for name in LOCKS:
        lock(name)
    return 0


def _text(name: str) -> str:
    path = HERE / f"{name}.txt"
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
