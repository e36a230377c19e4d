"""Which caller an address belongs to, and how many streams a caller may open."""

from contextlib import ExitStack

import pytest

from runtime.errors import ApiError
from runtime.limits import CallerLimit, caller_of


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("[2001:db8:1:3::1]", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_address_belongs_to_its_caller(address: str, caller: str) -> None:
    """A caller with one IPv6 address has 2^64 of them."""
    assert caller_of(address) == caller


def test_caller_gets_no_more_than_its_limit() -> None:
    limit = CallerLimit(3, 2)
    with ExitStack() as held:
        for caller in ("a", "a"):
            held.enter_context(limit.admit(caller))
        with pytest.raises(ApiError, match="too many streams of this caller are open"), limit.admit("a"):
            pass
        held.enter_context(limit.admit("b"))
        with pytest.raises(ApiError, match=r"too many streams are open$"), limit.admit("c"):
            pass
    with limit.admit("a"), limit.admit("a"):
        pass


def test_limit_of_zero_per_caller_is_none() -> None:
    limit = CallerLimit(2, 0)
    with limit.admit("a"), limit.admit("a"):
        with pytest.raises(ApiError), limit.admit("a"):
            pass
