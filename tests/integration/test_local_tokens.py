"""`make up AUTH_MODE=jwt` and `make token`."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import jwt
import pytest

from local.postgres import Postgres
from local.settings import REPOSITORY
from tests.support.oidc import new_key
from tests.support.up import Up


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state"
    yield path
    Postgres(path).remove()


def token(state: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `make token`."""
    return subprocess.run(
        ["make", "-s", f"VENV={sys.prefix}", "token"],
        cwd=REPOSITORY,
        env={**os.environ, "STATE_DIR": str(state), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refusal(state: Path, **variables: str) -> str:
    """Returns the message of `make token`, without that of make itself."""
    done = token(state, **variables)
    assert done.returncode == 2, "make's status"
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    return line


def received(http: httpx.Client, order_id: str) -> bool:
    order = http.get(f"/api/v1/orders/{order_id}").json()
    return bool(order["status"] == "RECEIVED")


@contextmanager
def up(state: Path, **variables: str) -> Iterator[tuple[str, httpx.Client]]:
    """A shop that runs until the end of the block: what it printed, and a client."""
    pace = {"SIMULATE_MIN_SECONDS": "0", "SIMULATE_MAX_SECONDS": "1"}
    with closing(Up(state, user=None, **pace, **variables)) as running:
        output = running.until_ready()
        with httpx.Client(base_url=f"http://localhost:{running.ports[0]}") as http:
            yield output, http
        assert running.end(signal.SIGINT) == 0


def test_tokens_outlive_a_restart(state: Path) -> None:
    """With the data of a shop that had no tokens: its orders are for staff to see."""
    with up(state) as (output, http):
        assert "no authentication" in output
        assert http.post("/demo/token", json={"sub": "eve"}).status_code == 404
        assert not (state / "issuer" / "key.pem").exists()
        assert refusal(state) == f"shop: no shop with AUTH_MODE=jwt uses {state}: start one by `make up AUTH_MODE=jwt`"
        products = http.get("/api/v1/products?pageSize=100").json()["products"]
        in_stock = next(product["id"] for product in products if product["stock"] != "0")
        body = {"items": [{"productId": in_stock, "quantity": 1}]}
        old = http.post("/api/v1/orders", json=body).json()

    with up(state, AUTH_MODE="jwt") as (output, http):
        assert "make -s STATE_DIR=" in output
        assert "no authentication" not in output
        assert stat.S_IMODE((state / "issuer" / "key.pem").stat().st_mode) == 0o600
        staff, ada = (token(state, **variables) for variables in ({"ROLE": "staff"}, {"SUB": "ada", "TTL": "15m"}))
        assert (staff.returncode, staff.stderr, staff.stdout.count("\n")) == (0, "", 1)
        claims = jwt.decode(ada.stdout.strip(), options={"verify_signature": False})
        assert (claims["sub"], claims["exp"] - claims["iat"]) == ("ada", 900)
        given = http.post("/demo/token", json={"sub": "eve"}).json()["token"]
        claims = jwt.decode(given, options={"verify_signature": False})
        assert (claims["sub"], claims["exp"] - claims["iat"]) == ("eve", 3600)
        eve = {"authorization": f"Bearer {given}"}
        assert http.get("/api/v1/orders", headers=eve).json()["orders"] == [], "not staff: the old order is nobody's"
        assert refusal(state, TTL="soon") == "demo: the lifetime of a token must be like 90s, 15m, 1h or 7d, not 'soon'"
        assert refusal(state, ROLE="boss") == "demo: the role must be customer or staff, not 'boss'"
    assert "start one by" in refusal(state)

    with up(state, AUTH_MODE="jwt") as (_, http):
        assert http.get("/api/v1/orders").status_code == 401
        http.headers["authorization"] = f"Bearer {ada.stdout.strip()}"
        assert http.get(f"/api/v1/orders/{old['id']}").status_code == 404
        order = http.post("/api/v1/orders", json=body).json()
        deadline = time.monotonic() + 30
        while not received(http, order["id"]):
            assert time.monotonic() < deadline, "the demo must move orders on, as staff"
            time.sleep(0.2)
        http.headers["authorization"] = f"Bearer {staff.stdout.strip()}"
        assert {each["id"] for each in http.get("/api/v1/orders").json()["orders"]} == {old["id"], order["id"]}
    logs = "".join(path.read_text(errors="replace") for path in (state / "logs").iterdir())
    assert not [secret for secret in (staff, ada) if secret.stdout.strip() in logs]


def test_provider_of_the_user_replaces_tokens_for_trying(state: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [new_key().jwk()]}))
    variables = {"AUTH_ISSUER": "https://login.example", "AUTH_AUDIENCE": "shop", "AUTH_JWKS_FILE": str(keys)}
    with up(state, AUTH_MODE="jwt", **variables) as (output, http):
        assert "without the demo: it acts as staff, for which it has no token of https://login.example" in output
        assert "make -s" not in output
        assert http.post("/demo/token", json={"sub": "eve"}).status_code == 404
        assert not (state / "issuer" / "key.pem").exists()
        assert not (state / "logs" / "demo-load.log").exists()
        assert refusal(state) == f"shop: the shop that uses {state} accepts tokens of https://login.example only"
