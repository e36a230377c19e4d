"""Who may call is configured before anything opens; a wrong setting is one line that names the variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.access.config import TOKEN_VARIABLES, AccessConfig
from runtime.config import ConfigError, Env
from tests.support.access import credentials

JWT = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "https://id.example", "AUTH_AUDIENCE": "shop"}


def access(**variables: str) -> AccessConfig:
    return AccessConfig.from_env(Env({"INTERNAL_CREDENTIALS": str(credentials()), **variables}))


def test_tokens_are_off_by_default() -> None:
    assert access().tokens is None


def test_tokens_need_an_issuer_and_an_audience_only() -> None:
    tokens = access(**JWT).tokens
    assert tokens is not None
    assert (tokens.issuer, tokens.audiences, tokens.algorithms) == ("https://id.example", ("shop",), ("RS256", "ES256"))
    assert (tokens.leeway, tokens.refresh_interval, tokens.guests) == (30, 300, True)
    assert (tokens.staff_claim, tokens.staff_value) == ("scope", "shop:staff")


def test_audiences_and_algorithms_are_lists() -> None:
    tokens = access(**JWT | {"AUTH_AUDIENCE": "shop, till", "AUTH_ALGORITHMS": "EdDSA,PS256"}).tokens
    assert tokens is not None
    assert (tokens.audiences, tokens.algorithms) == (("shop", "till"), ("EdDSA", "PS256"))


def test_issuer_need_not_be_a_url_if_its_keys_are_elsewhere() -> None:
    tokens = access(**JWT | {"AUTH_ISSUER": "our-login", "AUTH_JWKS_FILE": "/keys.json"}).tokens
    assert tokens is not None
    assert tokens.issuer == "our-login"


@pytest.mark.parametrize(
    ("variable", "changed"),
    [
        ("AUTH_MODE", {"AUTH_MODE": "oidc"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": ""}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "id.example"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "ftp://id.example"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "https://"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "https://[id"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "https://id.example:99999"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "https://id.example/a b"}),
        ("AUTH_ISSUER", {"AUTH_ISSUER": "https://id.example?realm=shop"}),
        ("AUTH_AUDIENCE", {"AUTH_AUDIENCE": ""}),
        ("AUTH_AUDIENCE", {"AUTH_AUDIENCE": " , "}),
        ("AUTH_JWKS_URL", {"AUTH_JWKS_URL": "/keys"}),
        ("AUTH_JWKS_URL", {"AUTH_JWKS_URL": "https://id.example", "AUTH_JWKS_FILE": "/keys.json"}),
        ("AUTH_JWKS_REFRESH", {"AUTH_JWKS_REFRESH": "0"}),
        ("AUTH_JWKS_REFRESH", {"AUTH_JWKS_REFRESH": "often"}),
        ("AUTH_ALGORITHMS", {"AUTH_ALGORITHMS": "none"}),
        ("AUTH_ALGORITHMS", {"AUTH_ALGORITHMS": "RS256,HS256"}),
        ("AUTH_ALGORITHMS", {"AUTH_ALGORITHMS": ","}),
        ("AUTH_LEEWAY", {"AUTH_LEEWAY": "-1"}),
        ("AUTH_LEEWAY", {"AUTH_LEEWAY": "3600"}),
        ("AUTH_GUESTS", {"AUTH_GUESTS": "yes"}),
        ("CALLER_HEADER", {"CALLER_HEADER": "x-caller"}),
        ("INTERNAL_CREDENTIALS", {"INTERNAL_CREDENTIALS": ""}),
        ("INTERNAL_CREDENTIALS_OPTIONAL_UNTIL", {"INTERNAL_CREDENTIALS_OPTIONAL_UNTIL": "tomorrow"}),
    ],
)
def test_wrong_setting_is_named_in_one_line(variable: str, changed: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        access(**JWT | changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", TOKEN_VARIABLES)
def test_token_setting_without_tokens_is_rejected(variable: str) -> None:
    """Somebody who set it believes that tokens are verified."""
    with pytest.raises(ConfigError, match=f"{variable} has no effect with AUTH_MODE=none"):
        access(**{variable: "true"})


@pytest.mark.parametrize("variable", ["AUTH_ISSUER", "AUTH_JWKS_URL"])
def test_password_in_a_url_is_rejected_and_not_repeated(variable: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        access(**JWT | {variable: "https://shop:s3cret@id.example"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file or directory"),
        ("", "not JSON"),
        ("[]", "no list `keys`"),
        ('{"keys": []}', "no key that can be used"),
        (
            '{"keys": [{"kty": "oct", "k": "AAAA"}]}',
            "no key that can be used (a type of key that is not supported)",
        ),
    ],
)
def test_unusable_file_of_keys_is_one_line_at_start(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AUTH_", "COVERAGE"))}
    environment |= JWT | {"AUTH_JWKS_FILE": str(file), "INTERNAL_CREDENTIALS": str(credentials())}
    done = subprocess.run(
        [sys.executable, "-m", "sse", "serve"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"sse: AUTH_JWKS_FILE: cannot use {file}: {problem}"]
