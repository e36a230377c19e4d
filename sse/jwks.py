"""The keys of tokens, for the edge of the same pod: so one piece of code gets them from the issuer."""

from typing import TYPE_CHECKING

from aiohttp import web

from runtime.errors import unavailable

if TYPE_CHECKING:
    from runtime.access.keys import Keys

PATH = "/jwks"
"""No route of the edge leads here."""


def add_route(application: web.Application, keys: "Keys | None") -> None:
    """Adds the path of the key set to an application, unless the shop verifies no tokens.

    Args:
        application: Where to add it. It turns an ApiError into a response.
        keys: The keys of the issuer; None if the shop verifies no tokens.
    """
    if keys is None:
        return

    async def get(_: web.Request) -> web.Response:
        known = keys.public_jwks()
        if known is None:
            raise unavailable("the keys of the issuer are not known yet")
        return web.Response(text=known, content_type="application/json")

    application.router.add_get(PATH, get)
