"""The commands of the restore drill in docs/cloudnativepg.md."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "cloudnativepg.md"

STEPS = (
    "names",
    "back up",
    "policies",
    "pooler",
    "make",
    "load",
    "numbers",
    "close",
    "switch",
    "reconcile",
    "back up again",
    "delete",
)


def before_drill() -> list[str]:
    """Returns the blocks of commands that come before the drill, but for those that have to be adapted."""
    return _blocks(PAGE.read_text().partition("## Restore drill\n")[0])


def steps() -> dict[str, str]:
    """Returns the commands of each step of the drill."""
    drill = PAGE.read_text().partition("## Restore drill\n")[2].partition("\n## ")[0]
    return dict(zip(STEPS, _blocks(drill), strict=True))


def names_of_catalogue() -> str:
    """Returns what replaces the step "names" for the catalogue."""
    found = re.findall(r"`(DATABASE=product .+?)`", PAGE.read_text())
    assert len(found) == 1
    return f"{found[0]}\n"


def _blocks(text: str) -> list[str]:
    return re.findall(r"(?s)```sh\n(.*?)```", text)
