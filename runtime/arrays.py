"""Arrays as parameters of statements that are run for one element as often as for many.

PostgreSQL plans a prepared statement anew each time while it takes that for cheaper, as it does where an array happens
to be shorter than it assumes of any. It cannot see the length of `ARRAY (SELECT unnest(...))`, so its first plan stays.
"""

from collections.abc import Iterable
from uuid import UUID


def uuids(ids: Iterable[UUID]) -> str:
    """The literal of a `uuid[]`. The driver's own takes six times as long."""
    return "{" + ",".join([each.hex for each in ids]) + "}"
