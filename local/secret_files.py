"""Secrets that the shop makes for itself: each in a folder, as the services read them."""

import os
from pathlib import Path
from secrets import token_hex

from runtime.access.secret import CURRENT


def secret_folder(folder: Path) -> Path:
    """Returns a folder with a secret of its own, which is made if there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / CURRENT
    if not file.exists():
        unfinished = folder / f"{CURRENT}.tmp"
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.write(token_hex(32))
        unfinished.rename(file)
    return folder
