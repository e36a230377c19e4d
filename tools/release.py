"""Sets the version, prints a version's section of the CHANGELOG, and tags a release.

python -m tools.release set 1.2.3
python -m tools.release notes 1.2.3
python -m tools.release tag
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = "CHANGELOG.md"

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?")
"""SemVer without build metadata, which neither an image tag nor an OCI chart may have."""

PLACES = (
    "pyproject.toml",
    "Dockerfile",
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "helm/shopping-cart/*.*",
    "tests/chart/golden/*.yaml",
)
"""The files that contain the project's version. tests/repository/test_release.py finds a file that is missing here."""

MENTION = r'((?:shopping-cart[:-]|VERSION=|[vV]ersion(?:"?: "?| = "| )|tag: ))%s(?![\w.-]*\d)'
"""The project's version with the words before it, so that the version of something else stays as it is."""


class ReleaseError(Exception):
    """The release cannot be made. The message says why."""


def current(root: Path) -> str:
    """Returns the version of the project."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return version


def set_version(root: Path, version: str) -> list[Path]:
    """Writes a version into every place that has one.

    Returns:
        The files that changed.

    Raises:
        ReleaseError: The version is not a semantic version.
    """
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version such as 1.2.3 or 1.2.3-rc.1")
    mention = re.compile(MENTION % re.escape(current(root)))
    changed: list[Path] = []
    for path in _places(root):
        before = path.read_text()
        after = mention.sub(rf"\g<1>{version}", before)
        if after != before:
            path.write_text(after)
            changed.append(path)
    return changed


def _places(root: Path) -> Iterator[Path]:
    for pattern in PLACES:
        yield from sorted(root.glob(pattern))


def notes(root: Path, version: str) -> str:
    """Returns what the CHANGELOG says about a version, without the heading.

    Raises:
        ReleaseError: The CHANGELOG has no dated section of the version, or the section is empty.
    """
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", re.MULTILINE)
    text = (root / CHANGELOG).read_text()
    found = heading.search(text)
    if not found:
        raise ReleaseError(f"{CHANGELOG} has no section `## [{version}] - YYYY-MM-DD`")
    section = re.split(r"^## ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not section:
        raise ReleaseError(f"{CHANGELOG} says nothing about {version}")
    return section


def tag(root: Path) -> str:
    """Tags the current commit with the version. The tag stays local: pushing it starts the release.

    Returns:
        The tag.

    Raises:
        ReleaseError: The checkout has uncommitted changes, the CHANGELOG lacks the version, or the tag exists.
    """
    version = current(root)
    notes(root, version)
    if _git(root, "status", "--porcelain"):
        raise ReleaseError("the checkout has uncommitted changes")
    name = f"v{version}"
    if _git(root, "tag", "--list", name):
        raise ReleaseError(f"the tag {name} exists already")
    _git(root, "tag", "--annotate", name, "--message", f"shopping-cart {version}")
    return name


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Set the version, print its release notes, or tag it.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("set", help="write a version into every place that has one").add_argument("version")
    commands.add_parser("notes", help="print the CHANGELOG's section of a version").add_argument("version")
    commands.add_parser("tag", help="tag the current commit with its version, locally")
    arguments = parser.parse_args()
    try:
        if arguments.command == "set":
            print(f"{len(set_version(ROOT, arguments.version))} files changed")
        elif arguments.command == "notes":
            print(notes(ROOT, arguments.version))
        else:
            name = tag(ROOT)
            print(f"tagged {name}; `git push origin {name}` publishes it")
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
