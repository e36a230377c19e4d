"""Callers who ask the same question at the same time share one lookup."""

import asyncio

import pytest

from runtime.batch import SharedLookup


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Library:
    """Answers lookups once it is open. Records them, and those that are cancelled."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, question: str) -> str:
        self.lookups.append(question)
        answer = f"{question} {len(self.lookups)}"
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(question)
            raise
        if question == "fire":
            raise RuntimeError("the library burns")
        return answer


async def test_callers_during_a_lookup_share_the_next_one() -> None:
    library = Library()
    ask = SharedLookup("library", library)
    first = asyncio.create_task(ask("a"))
    await _settle()
    later = [asyncio.create_task(ask(each)) for each in "aab"]
    await _settle()
    library.open.set()
    assert await first == "a 1", "looked up when it was asked"
    assert list(await asyncio.gather(*later)) == ["a 3", "a 3", "b 2"]
    assert library.lookups == ["a", "b", "a"]


async def test_lookup_is_cancelled_with_its_last_caller() -> None:
    library = Library()
    ask = SharedLookup("library", library)
    askers = [asyncio.create_task(ask("a")) for _ in range(3)]
    await _settle()
    for each in askers[:2]:
        each.cancel()
    await _settle()
    assert library.cancelled == []
    askers[2].cancel()
    await _settle()
    assert library.cancelled == ["a"]
    library.open.set()
    assert await ask("a") == "a 2"


async def test_finished_questions_are_forgotten() -> None:
    library = Library()
    ask = SharedLookup("library", library)
    leaves = asyncio.create_task(ask("d"))
    await _settle()
    leaves.cancel()
    library.open.set()
    assert list(await asyncio.gather(ask("a"), ask("a"), ask("b"))) == ["a 2", "a 2", "b 3"]
    with pytest.raises(RuntimeError, match="burns"):
        await ask("fire")
    await _settle()
    assert len(ask) == 0
