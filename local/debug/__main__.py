"""Reads the metrics of the shop's processes each second, and serves the page that shows them."""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from local.debug.history import History
from local.debug.numbers import Shop, view
from local.edge import LOCAL_HOSTS
from local.pages import TYPES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

INTERVAL = 1.0
"""Seconds between two readings."""

TIMEOUT = aiohttp.ClientTimeout(total=5)

FOLDER = Path(__file__).parent / "page"

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def read(session: aiohttp.ClientSession, history: History, url: str) -> None:
    """Adds one reading of a process to its history, if it responds."""
    try:
        async with session.get(url, timeout=TIMEOUT, raise_for_status=True) as response:
            history.add(time.monotonic(), await response.text())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        # A ValueError is text of another format: the page must not show old numbers as present ones.
        history.is_up = False


async def read_all(shop: Shop, urls: Mapping[str, str]) -> None:
    """Reads all processes again and again."""
    async with aiohttp.ClientSession() as session:
        while True:
            started = time.monotonic()
            await asyncio.gather(*(read(session, shop.processes[name], url) for name, url in urls.items()))
            await asyncio.sleep(max(0.0, started + INTERVAL - time.monotonic()))


@web.middleware
async def own_hosts_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses other host names: a page of another site can point a name of its own at this machine."""
    host = (request.url.host or "").strip("[]")
    if host not in LOCAL_HOSTS and not host.endswith(".localhost"):
        raise web.HTTPMisdirectedRequest
    return await handler(request)


def application(shop: Shop, urls: Mapping[str, str]) -> web.Application:
    """Returns the application."""

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(view(shop)), content_type="application/json", headers=HEADERS)

    async def file(request: web.Request) -> web.Response:
        path = FOLDER / request.match_info.get("name", "index.html")
        if path not in FOLDER.iterdir():
            raise web.HTTPNotFound
        headers = {**HEADERS, "Content-Type": TYPES[path.suffix]}
        return web.Response(body=path.read_bytes(), headers=headers)

    async def reading(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(read_all(shop, urls))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = web.Application(middlewares=[own_hosts_only])
    app.router.add_get("/debug", file)
    app.router.add_get("/debug/numbers.json", numbers)
    app.router.add_get("/debug/{name}", file)
    app.cleanup_ctx.append(reading)
    return app


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="local.debug", description="The page with the live numbers of a local shop.")
    parser.add_argument("--port", type=int, required=True, help="the port of the page, on loopback")
    parser.add_argument("processes", nargs="+", metavar="NAME=URL", help="where a process has its metrics")
    options = parser.parse_args()
    urls = dict(each.split("=", 1) for each in options.processes)
    web.run_app(application(Shop(), urls), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
