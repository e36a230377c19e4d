"""What stands for a caller in logs."""

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.access.caller import ANYBODY, NOBODY, Caller
from runtime.access.caller_hash import caller_hash
from runtime.access.config import AccessConfig, TokenConfig
from runtime.access.gate import Gate
from runtime.access.rules import Level, Rule
from tests.support.access import credential, credentials, open_access

SECRET = "0123456789abcdef" * 4


class NoTokens:
    async def verify(self, token: str, max_waiting: int | None = None) -> Caller:
        raise NotImplementedError


def described(caller: Caller, level: Level = Level.CUSTOMER, *, tokens: bool = True) -> str:
    config = open_access()
    if tokens:
        config = AccessConfig(tokens=TokenConfig(issuer="i", audiences=("a",)), credentials=credentials())
    return Gate(config, credential(), NoTokens() if tokens else None).description(Rule(level))(caller)


def test_hash_is_that_of_every_release() -> None:
    """Lines of different releases must have the same hash."""
    assert caller_hash("auth0|ada", SECRET) == "a332ddf4001f"


def test_hash_depends_on_the_credential() -> None:
    assert caller_hash("auth0|ada", SECRET) != caller_hash("auth0|ada", SECRET[1:] + "0")


def test_customer_is_a_hash() -> None:
    (secret,) = credential().secrets
    assert described(Caller(subject="ada", scope="ada")) == caller_hash("ada", secret)


def test_caller_whom_a_gateway_names_is_a_hash() -> None:
    (secret,) = credential().secrets
    assert described(Caller(is_staff=True, scope="ada"), tokens=False) == caller_hash("ada", secret)


@pytest.mark.parametrize(
    ("caller", "level", "tokens", "text"),
    [
        (NOBODY, Level.CUSTOMER, True, "guest"),
        (NOBODY, Level.INTERNAL, True, "internal"),
        (NOBODY, Level.INTERNAL, False, "internal"),
        (ANYBODY, Level.CUSTOMER, False, ""),
    ],
)
def test_caller_without_a_name(caller: Caller, level: Level, tokens: bool, text: str) -> None:
    assert described(caller, level, tokens=tokens) == text


def test_command_prints_the_hash_by_each_credential(tmp_path: Path) -> None:
    (tmp_path / "current").write_text(f"{SECRET}\n")
    (tmp_path / "additional").write_text(SECRET[::-1])
    command = [sys.executable, "-m", "order", "caller-hash", "auth0|ada"]
    environment = {"INTERNAL_CREDENTIALS": str(tmp_path)}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
    assert printed.split() == [caller_hash("auth0|ada", SECRET), caller_hash("auth0|ada", SECRET[::-1])]
