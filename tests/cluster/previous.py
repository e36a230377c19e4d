"""The commit of the release before this one: `python -m tests.cluster.previous` prints it, or why there is none."""

import shutil
import subprocess
import sys

from tests.chart import tools

MARK = "gRPC clients inside by that of the empty name"
"""Until there is a release, it is the first commit whose pods answer the clients inside until their connections end,
and whose clients go by that: all of that was there when this came."""


class Nothing(Exception):
    """There is no earlier commit to be had; the message says why."""


def previous() -> str:
    """The newest release's tag, or a commit. Raises Nothing in a checkout without history, as of an archive."""
    if not shutil.which("git"):
        raise Nothing("git is not here")
    if _git("rev-parse", "--is-shallow-repository") != "false":
        raise Nothing("this checkout has no history")
    tags = _git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD~1").splitlines()
    first = _git("log", "--reverse", "--format=%H", f"-S{MARK}", "--", "helm/shopping-cart/templates").splitlines()
    commit = (tags or first or [""])[0]
    if commit in ("", _git("rev-parse", "HEAD")):
        raise Nothing("the history has no earlier chart that can be upgraded from")
    return commit


def archive(commit: str, *paths: str) -> bytes:
    """What a commit has at these paths, as a tar archive."""
    return subprocess.run(["git", "archive", commit, *paths], cwd=tools.ROOT, check=True, capture_output=True).stdout


def _git(*arguments: str) -> str:
    """What git says; nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=tools.ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    try:
        print(previous())
    except Nothing as nothing:
        sys.exit(str(nothing))
