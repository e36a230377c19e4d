"""The benchmark of carts compares rounds of the same number, and counts what is sold."""

from dataclasses import replace

from bench.cart_data import SECRET
from bench.cart_purge import Pair, ratio
from bench.cart_rush import CARTS, PIECES, Rush
from bench.carts import BASELINE, PARTS, summarise, table
from bench.load import SCRIPT, Load
from bench.table import Round


def load(rps: float = 100.0, p99_ms: float = 2.0) -> Load:
    return Load(requests=100, rps=rps, p50_ms=1.0, p99_ms=p99_ms)


def test_ratios_compare_rounds_of_the_same_number() -> None:
    """A noisy round strikes all requests alike."""
    found = {
        BASELINE: [Round(load(rps), dict.fromkeys(PARTS, 1 / rps)) for rps in (100.0, 20.0, 50.0)],
        "CheckoutCart": [Round(load(rps / 2), dict.fromkeys(PARTS, 3 / rps)) for rps in (100.0, 20.0, 50.0)],
    }
    _, checkout = summarise(found)
    assert (checkout.rps_ratio, checkout.cpu_ratio) == (0.5, 3.0)
    assert "| CheckoutCart | 25 " in table([checkout])


def test_purge_is_compared_with_the_round_before_it() -> None:
    noise = (1.0, 9.0, 3.0)
    pairs = [Pair(without=load(p99_ms=each), during=load(p99_ms=1.1 * each)) for each in noise]
    assert ratio(pairs) == 1.1


SOLD = Rush(
    placed=PIECES,
    stored=PIECES,
    left=0,
    refused={"INSUFFICIENT_STOCK": CARTS - PIECES},
    placed_p99=1.0,
    refused_p50=1.0,
    refused_p99=1.0,
    alone={},
    beside={},
    failed=0,
    cpu_s_per_1000=1.0,
)


def test_rush_is_fine_only_if_all_pieces_are_sold_once() -> None:
    assert SOLD.ok
    wrong = (
        replace(SOLD, placed=PIECES - 1),
        replace(SOLD, stored=PIECES + 1),
        replace(SOLD, left=1),
        replace(SOLD, refused={"INSUFFICIENT_STOCK": CARTS - PIECES - 1, "UNAVAILABLE": 1}),
        replace(SOLD, failed=1),
    )
    assert not any(each.ok for each in wrong)


def test_load_has_the_secret_of_the_carts() -> None:
    assert f'["cart-secret"] = "{SECRET}"' in SCRIPT.read_text()
