"""The rates and quantiles of the page with the live numbers."""

import pytest

from local.debug.history import LENGTH, History


def history(*texts: str, prefixes: tuple[str, ...] = ("a",)) -> History:
    """Readings of which each is a second after the one before."""
    kept = History(prefixes)
    for number, text in enumerate(texts):
        kept.add(100.0 + number, text)
    return kept


def test_rate_is_taken_over_ten_seconds() -> None:
    kept = history(*(f"a_total {max(0, 7 * (number - 20))}" for number in range(40)))
    assert kept.rate("a_total") == 7
    assert kept.rates("a_total") == [0] * 20 + [7] * 19
    assert kept.increase("a_total") == 19 * 7
    assert kept.last("a_total") == 19 * 7


def test_series_that_appears_began_at_zero() -> None:
    kept = history("", "", 'a_total{code="OK"} 3')
    assert kept.rate("a_total") == 1.5
    assert kept.rates("a_total") == [0, 3]


def test_restarted_process_has_no_negative_rate() -> None:
    kept = history("a_total 50", "a_total 60", "a_total 2")
    assert kept.rate("a_total") == 0
    assert kept.rates("a_total") == [10, 0]


def test_labels_select_and_sum() -> None:
    kept = history('a{x="1",y="p q"} 1\na{x="1",y="r"} 2\na{x="2",y="r"} 4\n# a comment\nb 8')
    assert kept.last("a") == 7
    assert kept.last("a", x="1") == 3
    assert kept.last("a", x="1", y="p q") == 1
    assert kept.last("a", x="3") is None
    assert kept.last("b") is None, "its name is not kept"
    assert kept.label_values("a", "y", x="1") == ["p q", "r"]


def test_quantile_is_interpolated_within_its_bucket() -> None:
    empty = 'a_bucket{le="0.1"} 0\na_bucket{le="0.2"} 0\na_bucket{le="+Inf"} 0'
    kept = history(empty, 'a_bucket{le="0.1"} 50\na_bucket{le="0.2"} 90\na_bucket{le="+Inf"} 100')
    assert kept.quantile(0.25, "a") == pytest.approx(0.05)
    assert kept.quantile(0.7, "a") == pytest.approx(0.15)
    assert kept.quantile(0.99, "a") == 0.2, "more is not known"
    assert history(empty, empty).quantile(0.5, "a") is None
    assert history().quantile(0.5, "a") is None


def test_only_a_minute_is_kept() -> None:
    kept = history(*(f"a_total {number}" for number in range(200)))
    assert len(kept.rates("a_total")) == LENGTH - 1
    assert kept.increase("a_total") == LENGTH - 1


def test_process_that_does_not_respond_has_no_values() -> None:
    kept = history("a_total 1")
    kept.is_up = False
    assert kept.last("a_total") is None
    assert history().rate("a_total") == 0
