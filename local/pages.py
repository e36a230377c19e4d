"""The files in envoy/pages/, which the edge serves. The Helm chart makes the same routes of them (`_envoy.tpl`)."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

FOLDER = Path(__file__).resolve().parents[1] / "envoy" / "pages"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The content types, by suffix. There is no other kind of file."""


@dataclass(frozen=True)
class Page:
    """A file that the edge serves."""

    file: Path

    @property
    def path(self) -> str:
        """The path of its URL: `/` for index.html, `/<name>` for other HTML files, `/pages/<file>` for the rest."""
        if self.file.suffix == ".html":
            return "/" if self.file.stem == "index" else f"/{self.file.stem}"
        return f"/pages/{self.file.name}"

    @property
    def values(self) -> Mapping[str, str]:
        """The values of the names that stand for it in Envoy's files."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return {
            "PAGE": self.file.name,
            "PAGE_PATH": self.path,
            "PAGE_TYPE": TYPES[self.file.suffix],
            "PAGE_HASH": digest[:32],
        }


def pages() -> Sequence[Page]:
    """Returns all pages, in the order of their names."""
    return [Page(file) for file in sorted(FOLDER.iterdir())]


def page_settings(*, sign_in: bool, demo_tokens: bool) -> str:
    """Returns what pages have to know of a shop, as JSON.

    Args:
        sign_in: Whether the shop verifies tokens.
        demo_tokens: Whether it gives tokens for trying to anyone.
    """
    return json.dumps({"demoTokens": demo_tokens, "signIn": sign_in}, separators=(",", ":"))


def repeat(text: str) -> str:
    """Repeats the lines from `# each PAGE` to `# end PAGE` for each page, filled in."""

    def routes(found: re.Match[str]) -> str:
        return "".join(Template(found[1]).safe_substitute(page.values) for page in pages())

    return re.sub(r"(?s) *# each PAGE\n(.*?) *# end PAGE\n", routes, text)
