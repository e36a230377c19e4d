"""Stock for many reservations at a time, each of which stands or falls by itself."""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar
from uuid import UUID

from product.reservation import (
    Candidate,
    Hold,
    Item,
    Reservation,
    State,
    check_same,
    refusal,
    reservation_not_found,
)
from product.stock_store import StockStore
from runtime.batch import apart
from runtime.errors import ApiError, unavailable

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Outcome = Reservation | Exception
"""What came of one request."""

MAX_ROUNDS = 3
"""How often a transition is tried on a reservation that changes under it."""


class StockBatches:
    """Asks the store, and decides what came of each request.

    Every method returns one outcome for each request, in their sequence, and raises an ApiError only where nothing is
    known of any of them.
    """

    def __init__(self, store: StockStore) -> None:
        self._store = store

    async def reserve(self, holds: Sequence[Hold]) -> list[Outcome]:
        # Each round decides one at least, and nearly always all that were counted behind refused ones.
        return await _settle(holds, self._reserve, len(holds))

    async def confirm(self, ids: Sequence[UUID]) -> list[Outcome]:
        return await self._change(ids, self._store.confirm, "reservation confirmed", ("CONFIRMED", "RELEASED"))

    async def release(self, ids: Sequence[UUID]) -> list[Outcome]:
        return await self._change(ids, self._store.release, "reservation released", ("RELEASED",))

    async def _reserve(self, holds: Sequence[Hold]) -> list[Outcome | None]:
        # Of the same id, the first one; the others meet what came of it in the next round.
        first = {hold.id: hold for hold in reversed(holds)}
        together = [hold for hold in holds if first[hold.id] is hold]
        outcomes: dict[UUID, Outcome | None] = {}
        refused: dict[UUID, Sequence[Candidate]] = {}
        for hold, candidates in zip(together, await self._store.reserve(together), strict=True):
            if made := _made(hold, candidates):
                outcomes[hold.id] = made
            else:
                refused[hold.id] = candidates
        _say("stock reserved", outcomes)
        if refused:
            # They were there before, or cannot be had. The one comes first: it may be why too little is left.
            try:
                before = {each.id: each for each in await self._store.batch_get(list(refused))}
            except ApiError as error:
                if not outcomes:
                    raise
                return [outcomes.get(hold.id, error) if first[hold.id] is hold else None for hold in holds]
            for key, candidates in refused.items():
                outcomes[key] = _replayed(before[key], first[key]) if key in before else refusal(candidates)
        return [outcomes[hold.id] if first[hold.id] is hold else None for hold in holds]

    async def _change(
        self,
        ids: Sequence[UUID],
        change: Callable[[Sequence[UUID]], Awaitable[Sequence[Reservation]]],
        said: str,
        settled: tuple[State, ...],
    ) -> list[Outcome]:
        """Makes a transition. A reservation in one of the states `settled` is returned as it is."""

        async def step(those: Sequence[UUID]) -> list[Outcome | None]:
            changed = {each.id: each for each in await change(those)}
            _say(said, changed)
            rest = [key for key in those if key not in changed]
            try:
                found = {each.id: each for each in await self._store.batch_get(rest)} if rest else {}
            except ApiError as error:
                if not changed:
                    raise
                return [changed.get(key, error) for key in those]

            def outcome(key: UUID) -> Outcome | None:
                reservation = found.get(key)
                if reservation is None:
                    return changed.get(key) or reservation_not_found(key)
                return reservation if reservation.state in settled else None

            return [outcome(key) for key in those]

        once = list(dict.fromkeys(ids))
        outcomes = dict(zip(once, await _settle(once, step, MAX_ROUNDS), strict=True))
        return [outcomes[key] for key in ids]


def _say(what: str, ids: Collection[UUID]) -> None:
    """Logs a line for a batch: one for each of its reservations would cost as much as the rest of it."""
    if ids:
        log.info(what, extra={"reservation_ids": [str(each) for each in ids]})


async def _settle(
    requests: Sequence[Request], step: Callable[[Sequence[Request]], Awaitable[list[Outcome | None]]], rounds: int
) -> list[Outcome]:
    """Repeats a step with those requests of which it says None."""
    outcomes: dict[int, Outcome] = {}
    for _ in range(rounds):
        left = [number for number in range(len(requests)) if number not in outcomes]
        if not left:
            break
        try:
            answers = await apart(step, [requests[number] for number in left])
        except ApiError as error:
            if not outcomes:
                raise
            answers = [error] * len(left)
        outcomes |= {number: answer for number, answer in zip(left, answers, strict=True) if answer is not None}
    return [
        outcomes.get(number) or unavailable("the reservation is being changed", 0.1) for number in range(len(requests))
    ]


def _made(hold: Hold, candidates: Sequence[Candidate]) -> Reservation | None:
    """The reservation that was made of these."""
    expire_time = candidates[0].expire_time
    if expire_time is None:
        return None
    items = tuple(
        Item(
            product_id=one.product_id,
            quantity=one.quantity,
            name=one.name or "",
            currency=one.currency or "",
            price_micros=one.price_micros or 0,
        )
        for one in candidates
    )
    return Reservation(id=hold.id, state="HELD", items=items, expire_time=expire_time)


def _replayed(before: Reservation, hold: Hold) -> Outcome:
    try:
        return check_same(before, hold.wanted)
    except ApiError as error:
        return error
