"""The files that the edge serves to browsers."""

import re

import httpx
import pytest

from local.pages import FOLDER, TYPES, Page, pages
from tests.support.edge import edge_fixture, http_fixture
from tests.support.rest import Rest

in_module = pytest.mark.asyncio(loop_scope="module")

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: https:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
"""What a page may load, and who may show it in a frame."""


shop = edge_fixture()
http = http_fixture()


@in_module
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.file.name)
async def test_page_is_served_with_its_headers(http: httpx.AsyncClient, page: Page) -> None:
    answer = await http.get(page.path)
    assert (answer.status_code, answer.content) == (200, page.file.read_bytes())
    assert answer.headers.get_list("content-type") == [TYPES[page.file.suffix]]
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    [policy] = answer.headers.get_list("content-security-policy")
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == POLICY


@in_module
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.file.name)
async def test_page_that_a_browser_has_is_not_sent_again(http: httpx.AsyncClient, page: Page) -> None:
    etag = (await http.get(page.path)).headers["etag"]
    assert etag == f'"{page.values["PAGE_HASH"]}"'
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        answer = await http.get(page.path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (etag, "no-cache")
    assert (await http.get(page.path, headers={"if-none-match": '"other"'})).status_code == 200


@in_module
@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/pages",
        "/pages/",
        "/pages/nothing.js",
        "/pages/requests.lua",
        "/pages/../tls.yaml",
        "/pagesXx.js",
    ],
)
async def test_other_files_are_not_found(http: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        Rest.refused(await http.request(method, path), 404, 5)


@in_module
async def test_settings_say_that_there_are_no_tokens(http: httpx.AsyncClient) -> None:
    answer = await http.get("/pages/settings.json")
    assert (answer.status_code, answer.headers.get_list("content-type")) == (200, ["application/json"])
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.json() == {"signIn": False, "demoTokens": False}
    assert (await http.head("/pages/settings.json")).status_code == 200
    refused = await http.post("/pages/settings.json", json={})
    Rest.refused(refused, 405, 12)
    assert refused.headers["allow"] == "GET, HEAD, OPTIONS"


@in_module
async def test_query_is_ignored(http: httpx.AsyncClient) -> None:
    """Links from elsewhere often carry parameters of trackers."""
    assert (await http.get("/?utm_source=mail")).status_code == 200


def test_pages_load_nothing_from_elsewhere() -> None:
    """And have no inline script or style: the policy would forbid it."""
    for page in pages():
        text = page.file.read_text()
        assert not re.search(r"<script(?![^>]* src=)|<style|\s(style|on[a-z]+)=[\"']", text), page.file
        assert not re.search(r"(src|href)=[\"']?https?:|(from|import) *\(?[\"']https?:|url\([\"']?https?:", text), (
            page.file
        )


def test_every_file_is_a_page() -> None:
    assert {page.file for page in pages()} == set(FOLDER.iterdir())
    assert len({page.path for page in pages()}) == len(pages())
    assert sum(page.file.stat().st_size for page in pages()) < 256 * 1024, "the chart stores all of them, twice"
