"""Whether there are other replicas, by the addresses of a name."""

import socket

import pytest

from runtime import peers


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"10.0.0.1"}, False),
        ({"10.0.0.1", "fd00::1"}, False),
        ({"10.0.0.1", "10.0.0.2"}, True),
        ({"10.0.0.2"}, True),
    ],
)
async def test_other_addresses_are_peers(monkeypatch: pytest.MonkeyPatch, found: set[str], expected: bool) -> None:
    async def addresses(name: str) -> set[str]:
        return found if name == "shop-product" else {"10.0.0.1", "fd00::1"}

    monkeypatch.setattr(peers, "_addresses", addresses)
    assert await peers.has_peers("shop-product") == expected


async def test_unknown_name_has_no_peers() -> None:
    assert not await peers.has_peers("nowhere.invalid")
    assert not await peers.has_peers("")


async def test_own_name_has_no_peers() -> None:
    """The real resolver: what a pod's own name leads to is in its /etc/hosts."""
    assert not await peers.has_peers(socket.gethostname())
