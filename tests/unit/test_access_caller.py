"""What belongs to whom."""

import pytest

from runtime.access.caller import ANYBODY, NOBODY, Caller, current

ADA = Caller(subject="ada")
STAFF = Caller(subject="grace", is_staff=True)


@pytest.mark.parametrize(
    ("caller", "owner", "owns", "sees"),
    [
        (ADA, "ada", True, True),
        (ADA, "Ada", False, False),
        (ADA, "", False, False),
        (STAFF, "ada", False, True),
        (STAFF, "grace", True, True),
        (STAFF, "", False, True),
        (NOBODY, "ada", False, False),
        (NOBODY, "", False, False),  # two guests must not share what belongs to nobody
        (ANYBODY, "ada", False, True),
        (ANYBODY, "", False, True),
    ],
)
def test_only_owner_and_staff_see_what_belongs_to_somebody(caller: Caller, owner: str, owns: bool, sees: bool) -> None:
    assert (caller.owns(owner), caller.may_see(owner)) == (owns, sees)


def test_caller_outside_of_a_call_is_nobody() -> None:
    assert current() == NOBODY
