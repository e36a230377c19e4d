"""Prepares the rounds of a pair of operations, and runs them, many at a time."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg.types.json import Jsonb
from shop.cart.v1 import cart_pb2

from tests.races.operations import OPERATIONS, place_order
from tests.races.rounds import Call, Holder, Round, micros
from tests.races.shop import RaceShop

Pair = tuple[str, str]

ROUNDS_AT_ONCE = 12
"""Races that go on at the same time."""

CLIENTS = 4
"""Clients of a round, half of them for each operation."""

TURNS = 2
"""Operations that each client does, one after the other. Most make one to three calls."""

BATCH = 40
"""Rounds that are prepared together."""

ENOUGH = 10_000_000
"""Pieces of a product that does not run out."""

MERGED_CARTS = 3
"""Guests' carts of a round with a merge."""

PRICE_MICROS = 5_000_000

_PRODUCTS = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(%s) AS given (id uuid, stock bigint)
    ), made AS (
        INSERT INTO product (id, name, slug, sku, variant, description, category, currency, price_micros, stock, star,
            image_uri)
        SELECT id, 'Product ' || id, id, id, '', '', '', 'EUR', %s, stock, 0, '' FROM given
    )
    INSERT INTO stock_adjustment (request_id, product_id, delta) SELECT id, id, stock FROM given
    """

_CARTS = """
    INSERT INTO cart (id, owner, secret_hash, items, expire_time)
    SELECT id, owner, decode(secret_hash, 'hex'), items, now() + interval '30 days'
    FROM jsonb_to_recordset(%s) AS given (id uuid, owner text, secret_hash text, items jsonb)
    """

_REFILLS = """
    UPDATE cart SET items = given.items, etag = gen_random_uuid()
    FROM jsonb_to_recordset(%s) AS given (id uuid, items jsonb) WHERE cart.id = given.id
    """


class Driver:
    """Runs the rounds of one pair."""

    def __init__(self, shop: RaceShop, pair: Pair, calls: int) -> None:
        """Prepares nothing yet: see `run`.

        Args:
            shop: The shop.
            pair: The names of the operations.
            calls: The least number of calls to make.
        """
        self._shop = shop
        self._pair = pair
        self._target = calls
        self._dice = random.Random(f"{pair}")
        self.rounds: list[Round] = []

    @property
    def calls(self) -> int:
        """The number of calls that were made and answered."""
        return sum(len(each.calls) for each in self.rounds)

    @property
    def acknowledged(self) -> Counter[str]:
        """The calls that were not refused, by kind."""
        return Counter(call.kind for each in self.rounds for call in each.calls if not call.refusal)

    async def run(self) -> None:
        """Makes the calls."""
        while self.calls < self._target:
            made = self.calls / len(self.rounds) if self.rounds else CLIENTS * TURNS * 1.5
            count = min(BATCH, int((self._target - self.calls) / made) + 1)
            rounds = [self._round(len(self.rounds) + number) for number in range(count)]
            await self._prepare(rounds)
            self.rounds += rounds
            waiting = iter(rounds)
            async with asyncio.TaskGroup() as group:
                for _ in range(ROUNDS_AT_ONCE):
                    group.create_task(self._work(waiting))

    async def _work(self, waiting: Iterator[Round]) -> None:
        for each in waiting:
            await self._race(each)

    def _round(self, number: int) -> Round:
        dice = random.Random(f"{self._pair} {number}")
        race = Round(self._shop, dice)
        one, other = race.products
        # Where nothing else is in dispute, customers want more than there is.
        if "checkout" in self._pair and {"checkout", "cancel", "adjustStock"}.issuperset(self._pair):
            race.stock = dice.choice((20, 200))
        if "merge" in self._pair:
            race.guests = [race.guest({one: race.pieces(), other: race.pieces()}) for _ in range(MERGED_CARTS)]
            race.customers = [race.customer({one: race.pieces()}), race.customer()]
            race.holders = [*race.customers[:1], *race.guests[:1]]
        else:
            make = race.customer if number % 2 else race.guest
            race.holders = [make({one: race.pieces(), other: race.pieces()})]
            if race.stock < ENOUGH:
                race.holders.append(race.guest({one: race.pieces()}))
        return race

    async def _prepare(self, rounds: Sequence[Round]) -> None:
        """Puts the products and carts of rounds into the databases."""
        orders, products = self._shop.connections["order"], self._shop.connections["product"]
        made = [
            {"id": product, "stock": stock}
            for race in rounds
            for product, stock in zip(race.products, (race.stock, ENOUGH), strict=True)
        ]
        await products.execute(_PRODUCTS, (Jsonb(made), PRICE_MICROS))
        holders = [holder for race in rounds for holder in race.everybody]
        await orders.execute(_CARTS, (Jsonb([_cart(each) for each in holders]),))
        if "cancel" in self._pair:
            await asyncio.gather(*(_order(race, holder) for race in rounds for holder in race.holders))
            refills = [_cart(holder) for race in rounds for holder in race.holders]
            await orders.execute(_REFILLS, (Jsonb(refills),))
        found = await (await orders.execute("SELECT max(seq) FROM cart_history")).fetchone()
        assert found
        for race in rounds:
            race.start = found[0]
            race.calls.clear()

    async def _race(self, race: Round) -> None:
        async def client(name: str) -> None:
            for _ in range(TURNS):
                await race.pause()
                await OPERATIONS[name](race)

        async with asyncio.TaskGroup() as group:
            for name in [*self._pair] * (CLIENTS // 2):
                group.create_task(client(name))


def pairs() -> list[Pair]:
    """Returns all pairs of operations, each with itself too."""
    names = list(OPERATIONS)
    return [(one, other) for number, one in enumerate(names) for other in names[number:]]


def _cart(holder: Holder) -> dict[str, Any]:
    """Returns a cart for a statement."""
    items = [
        {"product_id": product, "quantity": pieces, "name": "Product", "currency": "EUR", "price_micros": PRICE_MICROS}
        for product, pieces in holder.items.items()
    ]
    secret = holder.secret_hash
    return {"id": holder.cart, "owner": holder.subject, "secret_hash": secret and secret.hex(), "items": items}


async def _order(race: Round, holder: Holder) -> None:
    """Places an order before the race, to be cancelled in it."""
    cart: cart_pb2.Cart | None = await race.view(holder)
    assert cart
    call = Call("checkout", cart.id, named_etag=cart.etag, expected_micros=micros(cart.total), holder=holder)
    await place_order(race, call)
