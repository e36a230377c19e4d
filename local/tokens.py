"""The tokens that a shop on this machine accepts: those of a provider that the user names, or its own, for trying."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtime.access.config import AccessConfig, TokenConfig
from runtime.config import ConfigError, Env

PROVIDER = ("AUTH_ISSUER", "AUTH_JWKS_FILE", "AUTH_JWKS_URL")
"""The variables that name a provider. If none of them is set, the shop signs tokens for trying."""

OWN_ISSUER = "https://issuer.shop.invalid"
"""The `iss` of tokens for trying. No such host exists: the shop reads the key from a file."""

OWN_AUDIENCE = "shop"

OWN_ALGORITHM = "ES256"
"""The algorithm of `demo token`."""

FOLDER = "issuer"
"""The folder of the key for tokens for trying, in the state folder."""

_MAKER = ("AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_STAFF_CLAIM", "AUTH_STAFF_VALUE", "AUTH_ALGORITHMS")
"""The variables that `demo token` reads."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Which tokens a shop accepts, and what its processes are told about them."""

    config: TokenConfig | None
    """None: none, and everybody may call everything."""
    variables: Mapping[str, str]
    """The variables that the processes get beside those that they inherit."""
    folder: Path
    """Has the key for tokens for trying, and notes for `make token`."""
    own: bool
    """Whether the shop signs tokens for trying."""

    @classmethod
    def from_env(cls, env: Mapping[str, str], state: Path) -> Self:
        """Reads and checks the variables.

        Raises:
            ConfigError: A variable has a value that cannot be used.
        """
        folder = state / FOLDER
        own = env.get("AUTH_MODE") == "jwt" and not any(env.get(name) for name in PROVIDER)
        variables: dict[str, str] = {}
        if own:
            variables = {
                "AUTH_ISSUER": OWN_ISSUER,
                "AUTH_AUDIENCE": env.get("AUTH_AUDIENCE") or OWN_AUDIENCE,
                "AUTH_JWKS_FILE": str(folder / "jwks.json"),
            }
        credentials = {"INTERNAL_CREDENTIALS": str(state / "credentials")}
        config = AccessConfig.from_env(Env({**env, **variables, **credentials})).tokens
        if config and own and OWN_ALGORITHM not in config.algorithms:
            raise ConfigError(
                f"AUTH_ALGORITHMS must include {OWN_ALGORITHM}, or set AUTH_ISSUER to that of your provider"
            )
        if config and config.jwks_file and not own and not os.access(config.jwks_file, os.R_OK):
            raise ConfigError(f"AUTH_JWKS_FILE: cannot read {config.jwks_file}")
        return cls(config=config, variables=variables, folder=folder, own=own)

    @property
    def key(self) -> Path:
        """The file of the private key for tokens for trying."""
        return self.folder / "key.pem"

    def keep(self, jwks: str, inherited: Mapping[str, str]) -> None:
        """Writes down the public key, for the services, and what tokens say, for `make token`.

        Args:
            jwks: The key set; empty if the shop signs no tokens.
            inherited: The variables that the processes inherit.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.own:
            _write(self.folder / "jwks.json", jwks)
        notes = _notes(self.folder)
        if self.config:
            known = {**inherited, **self.variables}
            maker = {name: known[name] for name in _MAKER if known.get(name)}
            _write(notes, json.dumps(maker | ({"ISSUER_KEY": str(self.key)} if self.own else {})))
        else:
            notes.unlink(missing_ok=True)


def maker_variables(state: Path, lock: Path) -> Mapping[str, str]:
    """Returns the variables for `demo token`, whose tokens the shop that uses a state folder accepts.

    Args:
        state: The state folder.
        lock: The file that a running shop has locked.

    Raises:
        ConfigError: No shop uses it now, or one that accepts no tokens for trying.
    """
    try:
        found: dict[str, str] = json.loads(_notes(state / FOLDER).read_text())
    except FileNotFoundError:
        found = {}
    if not found or not _is_locked(lock):
        raise ConfigError(f"no shop with AUTH_MODE=jwt uses {state}: start one by `make up AUTH_MODE=jwt`")
    if "ISSUER_KEY" not in found:
        raise ConfigError(f"the shop that uses {state} accepts tokens of {found['AUTH_ISSUER']} only")
    return found


def _notes(folder: Path) -> Path:
    return folder / "tokens.json"


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _write(path: Path, text: str) -> None:
    """Replaces a file in one step: a running process may read it."""
    new = path.with_suffix(".tmp")
    new.write_text(text)
    new.replace(path)
