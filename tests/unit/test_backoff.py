"""Pauses between attempts grow up to a maximum, and differ."""

from runtime.backoff import Backoff


def test_pauses_double_up_to_the_maximum() -> None:
    backoff = Backoff(1, 5)
    for longest in (1, 2, 4, 5, 5):
        assert longest / 2 <= backoff.next() <= longest


def test_reset_starts_with_the_shortest_pause() -> None:
    backoff = Backoff(1, 60)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1


def test_pauses_of_two_replicas_differ() -> None:
    assert Backoff(1, 1).next() != Backoff(1, 1).next()
