"""The commit that the upgrade test begins with: `python -m tests.cluster.previous` prints it, or why there is none."""

import shutil
import subprocess
import sys

from tests.chart import tools

UPGRADE_FROM = "v0.1.0"
"""The release that the upgrade test installs first. Set it to the newest tag after each release."""

COMMITS = {"v0.1.0": "ac347ebefc3e6da4e9f260384ef770bcf401fef6"}
"""Commits of releases, by version, for clones in which the release has no tag."""


class NoRelease(Exception):
    """This checkout has no earlier release. The message says why."""


def previous() -> str:
    """Returns the commit of the release UPGRADE_FROM.

    Raises:
        NoRelease: git is missing, or the checkout lacks the commit (an archive, a shallow clone).
    """
    if not shutil.which("git"):
        raise NoRelease("git is not installed")
    for name in (f"refs/tags/{UPGRADE_FROM}", COMMITS.get(UPGRADE_FROM, "")):
        if name and (commit := _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")):
            return commit
    raise NoRelease(f"this checkout does not have the commit of {UPGRADE_FROM}")


def archive(commit: str, *paths: str) -> bytes:
    """Returns the files of a commit at these paths, as a tar archive."""
    return subprocess.run(["git", "archive", commit, *paths], cwd=tools.ROOT, check=True, capture_output=True).stdout


def _git(*arguments: str) -> str:
    """Returns the output of a git command, or nothing if it fails."""
    done = subprocess.run(["git", *arguments], cwd=tools.ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    try:
        print(previous())
    except NoRelease as error:
        sys.exit(str(error))
