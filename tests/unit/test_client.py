"""Channels to other services."""

import pytest

from runtime.client import is_resolvable


@pytest.mark.parametrize(
    "address", ["dns:///localhost:50052", "dns:///127.0.0.1:50052", "ipv4:127.0.0.1:1,127.0.0.1:2"]
)
async def test_known_name_is_resolvable(address: str) -> None:
    assert await is_resolvable(address)


async def test_unknown_name_is_not_resolvable() -> None:
    assert not await is_resolvable("dns:///nowhere.invalid:50052")
