"""PostgreSQL's data: the folder that keeps it, who owns that, the passwords, and how new data is made."""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from local.children import ChildError, Sleep, User, run
from local.databases import RENAMED, SERVICES, SUPERUSER
from local.server_programs import remove
from local.server_user import can_read

ROOT_HOME = Path("/var/lib/shopping-cart")
"""Keeps the data if root runs the shop in a folder that the server's user cannot reach."""

INITDB_TIMEOUT = 60.0
"""Seconds that making new data may take."""


class DataFolder:
    """The data of one server."""

    def __init__(self, state: Path, user: User | None) -> None:
        """Keeps nothing yet: see `prepare`.

        Args:
            state: The shop's state folder.
            user: The user that the server runs as; None is the current one.
        """
        self._state = state
        self._user = user

    @cached_property
    def home(self) -> Path:
        """The folder of everything that belongs to the server. The state folder must exist."""
        if self._user and not can_read(self._user, self._state):
            return ROOT_HOME / hashlib.sha256(str(self._state).encode()).hexdigest()[:12]
        return self._state / "postgres"

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self._state / "logs"

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of the server's programs."""
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self.home), "LC_ALL": "C", "TZ": "UTC"}

    @property
    def is_initialised(self) -> bool:
        """Whether there is data."""
        return (self.data / "PG_VERSION").exists()

    @property
    def passwords(self) -> Mapping[str, str]:
        """The password of each role."""
        found: dict[str, str] = json.loads(self._passwords_file.read_text())
        return found

    @property
    def _passwords_file(self) -> Path:
        return self._state / "secrets.json"

    def prepare(self) -> None:
        """Makes the home folder. The server's user can enter it, whatever the umask is.

        It belongs to the current user even so: where another user may write, a link of theirs could redirect what
        root writes.

        Raises:
            ChildError: The folder cannot be made.
        """
        try:
            self.logs.mkdir(exist_ok=True)
            self.home.mkdir(parents=True, exist_ok=True)
            if self._user:
                if self.home.parent == ROOT_HOME:
                    ROOT_HOME.chmod(0o711)
                home = os.open(self.home, os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.fchown(home, os.geteuid(), os.getegid())
                    os.fchmod(home, 0o755)
                finally:
                    os.close(home)
        except OSError as error:
            raise ChildError(f"cannot keep PostgreSQL's data in {self.home}: {error.strerror}") from None

    def set_aside_without_passwords(self) -> Path | None:
        """Moves data whose passwords are lost out of the way, since nobody can open it.

        They are lost when somebody deletes the state folder, but not a home outside it.

        Returns:
            Where the data is now, or None if nothing had to be moved.
        """
        if self.data.exists() and not self._passwords_file.exists():
            return self.data.rename(self.home / f"data-{time.time_ns()}")
        return None

    def initialise(self, programs: Path, sleep: Sleep) -> None:
        """Makes new data, and new passwords for all roles.

        Args:
            programs: The folder of the server's programs.
            sleep: Waits for initdb. It may raise to cancel.

        Raises:
            ChildError: initdb failed.
        """
        self._write_passwords({role: secrets.token_urlsafe(24) for role in (SUPERUSER, *SERVICES)})
        unfinished = self.new_folder(f"{self.data.name}.tmp")
        password = self._new_file("password", self.passwords[SUPERUSER])
        try:
            run(
                "initdb",
                [
                    *(programs / "bin" / "initdb", f"--pgdata={unfinished}", f"--username={SUPERUSER}"),
                    *("--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"),
                    *("--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
                ],
                self.logs,
                self.environment,
                timeout=INITDB_TIMEOUT,
                user=self._user,
                folder=self.home,
                sleep=sleep,
            )
        finally:
            password.unlink()
        unfinished.rename(self.data)

    def rename_passwords(self) -> None:
        """Gives the passwords of roles that were renamed to their new names. A second call changes nothing."""
        passwords = self.passwords
        if not passwords.keys().isdisjoint(RENAMED):
            self._write_passwords({RENAMED.get(role, role): password for role, password in passwords.items()})

    def new_folder(self, name: str) -> Path:
        """Makes a new, empty folder in the home folder, which the server's user owns. Removes what had this name."""
        path = self.home / name
        remove(path)
        path.mkdir(mode=0o700)
        if self._user:
            os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)
        return path

    def remove(self) -> None:
        """Deletes the home folder with all data."""
        shutil.rmtree(self.home, ignore_errors=True)

    def _new_file(self, name: str, text: str) -> Path:
        """Makes a new file in the home folder that only the server's user can read. Removes what had this name."""
        path = self.home / name
        remove(path)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            if self._user:
                os.fchown(file.fileno(), self._user.uid, self._user.gid)
        return path

    def _write_passwords(self, passwords: Mapping[str, str]) -> None:
        """Replaces the file in one step: half a file would lock everybody out."""
        new = self._passwords_file.with_suffix(".tmp")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(json.dumps(passwords))
        new.replace(self._passwords_file)
