"""Where a process's time goes: `python -m bench profile CASE`, or `make profile CASE=create-order`.

A flame graph of each Python process that takes part in a case, sampled under the load of the comparison.
"""

import shutil
import subprocess

from bench.compare import CASES, CONNECTIONS, ORDERS, PRODUCTS, lines
from bench.load import LoadError, run
from bench.rivals.shop import compared_shop
from bench.table import SHOP
from local.settings import REPOSITORY

SECONDS = 12
PARTS = ("product", "order")

RATE = 200
"""Samples a second."""


def profile(case: str) -> int:
    """Writes build/profile-CASE-PROCESS.svg, and prints the paths; returns the exit status.

    Raises:
        LoadError: py-spy is missing, or may not look into processes.
    """
    sampler = shutil.which("py-spy", path=str(REPOSITORY / ".venv/bin")) or shutil.which("py-spy")
    if sampler is None:
        raise LoadError("py-spy is missing: it comes with the extra `bench`")
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with compared_shop(PRODUCTS, ORDERS, rivals=()) as shop:
        file = lines(shop, case, SHOP)
        url, kind = shop.url(SHOP), CASES[case].kind
        run(url, kind, file, 1, connections=CONNECTIONS, seconds=2)
        targets = [REPOSITORY / "build" / f"profile-{case}-{part}.svg" for part in PARTS]
        samplers = []
        for part, target in zip(PARTS, targets, strict=True):
            (pid,) = (shop.children[name].process.pid for name in shop.names(part))
            target.unlink(missing_ok=True)
            options = ["--rate", str(RATE), "--duration", str(SECONDS - 2), "--output", str(target), "--pid", str(pid)]
            command = [sampler, "record", *options]
            samplers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        # A cancelled order is not cancelled again: this load goes on far behind the first.
        run(url, kind, file, ORDERS // 2, connections=CONNECTIONS, seconds=SECONDS)
        words = [each.communicate()[1] for each in samplers]
    for target in targets:
        if target.exists():
            print(target)
    if failed := [word for each, word in zip(samplers, words, strict=True) if each.returncode]:
        raise LoadError(reason(failed[0]))
    return 0


def reason(words: str) -> str:
    """Why py-spy has failed, in one line."""
    if "permission denied" in words.lower() or "operation not permitted" in words.lower():
        return (
            "py-spy may not look into processes: run as root, or allow ptrace (kernel.yama.ptrace_scope=0, SYS_PTRACE)"
        )
    return f"py-spy failed: {' '.join(words.split()) or 'it said nothing'}"
