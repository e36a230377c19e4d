"""Who may see an order, and when its owner is looked for."""

import asyncio
from uuid import UUID, uuid4

import pytest

from order.viewers import Viewer
from runtime.access.caller import ANYBODY, NOBODY, Caller
from runtime.errors import ApiError, unauthenticated
from runtime.refusals import DomainError

ORDER = UUID("123e4567-e89b-42d3-a456-426614174000")
ADA = Caller(subject="ada", scope="ada")
REFUSAL = unauthenticated("TICKET_EXPIRED", "the order's ticket has expired")


def looked(viewer: Viewer, owner: str | None) -> int:
    """Returns how often the owner of an order was looked for."""
    asked: list[UUID] = []

    async def get_owner(order_id: UUID) -> str | None:
        asked.append(order_id)
        return owner

    asyncio.run(viewer.find_and_check(ORDER, get_owner))
    return len(asked)


def test_owner_matters_to_customers_only() -> None:
    assert looked(Viewer(ANYBODY), None) == 0, "a shop without tokens runs no other statement than before"
    assert looked(Viewer(Caller(subject="sam", is_staff=True)), None) == 0
    assert looked(Viewer(NOBODY, frozenset({ORDER})), None) == 0
    assert looked(Viewer(ADA), "ada") == 1


@pytest.mark.parametrize("owner", [None, "", "bob", "Ada", "ada "])
@pytest.mark.parametrize("viewer", [Viewer(ADA), Viewer(NOBODY), Viewer(ADA, frozenset({uuid4()}))])
def test_orders_of_others_are_not_found(viewer: Viewer, owner: str | None) -> None:
    with pytest.raises(DomainError) as caught:
        viewer.check(ORDER, owner)
    assert caught.value.reason == "ORDER_NOT_FOUND"


@pytest.mark.parametrize("owner", [None, "", "bob"])
def test_refused_ticket_is_said_of_any_order(owner: str | None) -> None:
    with pytest.raises(ApiError, match="expired"):
        Viewer(ADA, refusal=REFUSAL).check(ORDER, owner)


def test_refused_ticket_does_not_matter_to_owner() -> None:
    Viewer(ADA, refusal=REFUSAL).check(ORDER, "ada")
