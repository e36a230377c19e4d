"""The helper that waits in tests: what it waits for, and what its failures show."""

import pytest

from tests.support.eventually import eventually


async def test_true_value_is_returned() -> None:
    values = iter(["", "", "found"])
    assert await eventually(lambda: next(values)) == "found"


async def test_awaitable_is_awaited() -> None:
    values = iter([False, True])

    async def value() -> bool:
        return next(values)

    assert await eventually(value)


async def test_failed_assertion_is_evaluated_again() -> None:
    values = iter([1, 2, 3])

    def is_three() -> bool:
        assert next(values) == 3
        return True

    assert await eventually(is_three)


async def test_failure_shows_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"still \[\] after 0\.01 s: .*lambda"):
        await eventually(lambda: sorted(()), seconds=0.01)


async def test_failure_is_the_last_failed_assertion() -> None:
    def fails() -> bool:
        assert not "the last value", "what was compared"
        return True

    with pytest.raises(AssertionError, match="what was compared"):
        await eventually(fails, seconds=0.01)
