"""Measures what a token costs: `python -m bench auth`, or `make bench CASE=auth`.

One shop verifies tokens, and one does not. The same requests go to both, with and without a token, in turn, round by
round. Figures and ratios are medians of the rounds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import psycopg
from cryptography.hazmat.primitives.asymmetric import ec

from bench.bench_shop import BenchShop, running
from bench.data import HOT, fill_orders, fill_products, order_id, product_id
from bench.load import installed
from bench.report import check, section, write
from bench.rounds import POSTGRES, one_round
from bench.table import Round, markdown, save
from demo.signing_key import SigningKey
from local.edge import EdgeAuth, EdgeSettings
from local.settings import REPOSITORY

RESULT = REPOSITORY / "build" / "bench-auth.json"
NAME = "auth"
"""The name of the place in the documentation."""

PRODUCTS = 10_000
ORDERS = 10_000
CUSTOMERS = 100
"""Each has a token and some of the orders."""

CONNECTIONS = 32
ROUNDS = 7
SECONDS = 2
ISSUER = "https://issuer.shop.invalid"
AUDIENCE = "shop"
OPEN, GUARDED = "open", "guarded"
"""The shop that verifies no tokens, and the one that does."""


class GuardedShop(BenchShop):
    """A shop that verifies tokens. It has the keys in a file."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, orders=1, edges=1)
        self._key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
        self._jwks = state / "jwks.json"
        self._jwks.write_text(self._key.jwks())

    def token(self, subject: str) -> str:
        """Returns a customer's token of an hour."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 3600, "scope": "openid"}
        return self._key.sign(claims)

    def environment(self, **more: str) -> Mapping[str, str]:
        own = {"AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_FILE": str(self._jwks)}
        return super().environment(AUTH_MODE="jwt", **own, **more)

    def edge_settings(self, n: int) -> EdgeSettings:
        return replace(super().edge_settings(n), auth=EdgeAuth(issuer=ISSUER, audiences=(AUDIENCE,)))


@dataclass(frozen=True)
class Case:
    """The requests of one kind of caller."""

    request: str
    caller: str
    shop: str
    service: str
    """The process that responds, beside Envoy."""
    baseline: str
    """The caller whose requests it is compared with; itself if it is the first."""


PRODUCT, ORDER = "GET a product", "GET an order"
NO_AUTH, NO_TOKEN, TOKEN = "AUTH_MODE=none", "AUTH_MODE=jwt, no token", "AUTH_MODE=jwt, a token"

CASES = (
    Case(PRODUCT, NO_AUTH, OPEN, "product", NO_AUTH),
    Case(PRODUCT, NO_TOKEN, GUARDED, "product", NO_AUTH),
    Case(PRODUCT, TOKEN, GUARDED, "product", NO_TOKEN),
    Case(ORDER, NO_AUTH, OPEN, "order", NO_AUTH),
    Case(ORDER, TOKEN, GUARDED, "order", NO_AUTH),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The medians of the rounds of one case. CPU seconds are those of 1,000 requests."""

    request: str
    caller: str
    rps: float
    p50_ms: float
    envoy_cpu_s: float
    service_cpu_s: float
    cpu_s: float
    """Of Envoy, the service and PostgreSQL."""
    compared_with: str
    ratio: float
    """The CPU seconds, divided by those of the requests that it is compared with, in the same round."""


def _requests(case: Case, tokens: Sequence[str]) -> list[str]:
    """Returns the lines of a case: a path, and a tab and a token if one is sent."""
    if case.request == PRODUCT:
        paths = [f"/api/v1/products/{product_id(n)}" for n in range(1, HOT + 1)]
    else:
        paths = [f"/api/v1/orders/{order_id(n)}" for n in range(1, HOT + 1)]
    if case.caller != TOKEN:
        return paths
    return [f"{path}\tBearer {tokens[n % CUSTOMERS]}" for n, path in enumerate(paths, 1)]


def _fill(shop: BenchShop) -> None:
    fill_products(shop.postgres.service("product"), PRODUCTS)
    fill_orders(shop.postgres.service("order"), PRODUCTS, ORDERS, ours=True)
    with psycopg.connect(shop.postgres.service("order")) as connection:
        connection.execute(
            "UPDATE orders SET owner = 'customer-' || n %% %s"
            " FROM unnest(%s::uuid[]) WITH ORDINALITY AS given (order_id, n) WHERE id = order_id",
            (CUSTOMERS, [order_id(n) for n in range(1, HOT + 1)]),
        )
    asyncio.run(shop.ready())


def summarise(found: Mapping[Case, Sequence[Round]]) -> list[Result]:
    """Returns the medians of the rounds of each case."""
    results: list[Result] = []
    for case, rounds in found.items():
        (baseline,) = (each for each in found if (each.request, each.caller) == (case.request, case.baseline))
        ratios = [ours.cpu / theirs.cpu for ours, theirs in zip(rounds, found[baseline], strict=True)]
        results.append(
            Result(
                request=case.request,
                caller=case.caller,
                rps=round(median(each.load.rps for each in rounds), 1),
                p50_ms=round(median(each.load.p50_ms for each in rounds), 1),
                envoy_cpu_s=round(median(each.cpu_s_per_1000["envoy"] for each in rounds), 3),
                service_cpu_s=round(median(each.cpu_s_per_1000[case.service] for each in rounds), 3),
                cpu_s=round(median(each.cpu for each in rounds), 3),
                compared_with=case.baseline,
                ratio=round(median(ratios), 2),
            )
        )
    return results


def table(results: Sequence[Result]) -> str:
    """Returns the results as a table in Markdown."""
    head = (
        "request",
        "caller",
        "requests/s",
        "p50 ms",
        "CPU s per 1,000",
        "Envoy",
        "service",
        "CPU ratio",
        "compared with",
    )
    rows = [
        (
            *(each.request, each.caller, f"{each.rps:,.0f}", f"{each.p50_ms:.1f}", f"{each.cpu_s:.3f}"),
            *(f"{each.envoy_cpu_s:.3f}", f"{each.service_cpu_s:.3f}", f"{each.ratio:.2f}", each.compared_with),
        )
        for each in results
    ]
    return markdown(head, rows)


def measure(shops: Mapping[str, BenchShop], tokens: Sequence[str], *, rounds: int, seconds: int) -> list[Result]:
    """Runs the rounds of all cases in turn. The first round warms up, and does not count."""
    found: dict[Case, list[Round]] = {case: [] for case in CASES}
    for number in range(rounds + 1):
        for index, case in enumerate(CASES):
            shop = shops[case.shop]
            file = shop.state / f"auth-{index}.txt"
            file.write_text("\n".join(_requests(case, tokens)) + "\n")
            salt = number * len(CASES) + index + 1
            parts = ("envoy", case.service, POSTGRES)
            took = one_round(shop, parts, "get", file, salt, connections=CONNECTIONS, seconds=seconds)
            if number:
                found[case].append(took)
        print(f"round {number} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return summarise(found)


def auth(*, rounds: int = ROUNDS, seconds: int = SECONDS, write_to: Path | None = None) -> int:
    """Runs all cases. Returns the exit status."""
    installed()
    if write_to:
        check(write_to, NAME)
    with ExitStack() as stack:
        guarded = stack.enter_context(running(GuardedShop))
        without = stack.enter_context(running(lambda state: BenchShop(state, orders=1, edges=1)))
        for shop in (guarded, without):
            _fill(shop)
        tokens = [guarded.token(f"customer-{n}") for n in range(CUSTOMERS)]
        results = measure({OPEN: without, GUARDED: guarded}, tokens, rounds=rounds, seconds=seconds)
    save(results, RESULT)
    conditions = f"{CONNECTIONS} connections, {CUSTOMERS} customers, medians of {rounds} rounds of {seconds} s"
    text = section("make bench CASE=auth", conditions, table(results))
    print(text)
    if write_to:
        write(write_to, NAME, text)
    return 0
