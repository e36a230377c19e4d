"""The user that PostgreSQL runs as: the server refuses to run as root."""

import os
import pwd
import subprocess
from pathlib import Path

from local.children import ChildError, User

CANDIDATES = ("postgres", "nobody")
"""The users that root runs the server as: the first one that exists."""


def server_user() -> User | None:
    """Returns the user that the server must switch to, or None if it can run as the current user.

    Raises:
        ChildError: We are root, and no user of CANDIDATES exists.
    """
    if os.geteuid():
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    raise ChildError(
        f"PostgreSQL cannot run as root, and there is no user named {' or '.join(CANDIDATES)} that it could run as"
    )


def can_read(user: User, path: Path) -> bool:
    """Returns whether the path exists and this user can read it. Only root can find out."""
    command = ["setpriv", *user.setpriv_options, "test", "-r", str(path)]
    return subprocess.run(command, check=False, cwd="/").returncode == 0
