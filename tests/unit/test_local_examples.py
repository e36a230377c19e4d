"""What `make up` prints for trying the shop, in each mode. tests/e2e/test_readme.py runs the commands."""

from pathlib import Path

import pytest

from local.examples import examples
from local.settings import Settings
from tests.support.oidc import new_key


def printed(state: Path, **variables: str) -> str:
    return examples(Settings.from_env({"STATE_DIR": str(state), **variables}))


def test_open_shop_says_so_and_needs_no_token(tmp_path: Path) -> None:
    text = printed(tmp_path)
    assert "no authentication: whoever reaches http://localhost:8080 can read and change everything" in text
    assert "Authorization" not in text
    assert "Ticket" not in text


def test_token_is_for_the_shop_of_this_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "a shop"
    assert f"TOKEN=$(make -s STATE_DIR='{state}' token ROLE=staff)" in printed(state, AUTH_MODE="jwt")


def test_order_needs_a_token_where_guests_may_not_order(tmp_path: Path) -> None:
    text = printed(tmp_path, AUTH_MODE="jwt", AUTH_GUESTS="false")
    assert text.count('-H "Authorization: Bearer $TOKEN"') == 6, "a product, a cart, three of its methods, a stream"
    assert "Ticket" not in text
    assert "Cart-Secret" not in text


def test_provider_is_named_where_the_user_has_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(str(new_key().jwk()))
    provider = {"AUTH_ISSUER": "https://login.example", "AUTH_AUDIENCE": "shop", "AUTH_JWKS_FILE": str(keys)}
    text = printed(tmp_path, AUTH_MODE="jwt", **provider)
    assert "tokens of https://login.example; the commands below need one in the variable TOKEN" in text
    assert "make -s" not in text


@pytest.mark.parametrize("mode", ["none", "jwt"])
def test_every_line_is_a_heading_or_a_command(tmp_path: Path, mode: str) -> None:
    for line in printed(tmp_path, AUTH_MODE=mode).splitlines()[2:]:
        assert line == "" or line.endswith(":") or line.startswith("  "), line
