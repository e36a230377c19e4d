"""Where a process's time goes: `python -m bench profile CASE`, or `make profile CASE=create-order`.

A flame graph of each Python process that takes part in a case, sampled under the load of the comparison.
"""

import shutil
import subprocess
import sys

from bench.compare import CASES, CONNECTIONS, ORDERS, PRODUCTS, lines
from bench.load import LoadError, run
from bench.rivals.shop import compared_shop
from bench.table import SHOP
from local.settings import REPOSITORY

SECONDS = 12
RATE = 200
"""Samples a second."""


def profile(case: str) -> int:
    """Writes build/profile-CASE-PROCESS.svg; returns the exit status."""
    sampler = shutil.which("py-spy", path=str(REPOSITORY / ".venv/bin")) or shutil.which("py-spy")
    if sampler is None:
        raise LoadError("py-spy is missing: it comes with the extra `bench`")
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with compared_shop(PRODUCTS, ORDERS, rivals=()) as shop:
        file = lines(shop, case, SHOP)
        url, kind = shop.url(SHOP), CASES[case].kind
        run(url, kind, file, 1, connections=CONNECTIONS, seconds=2)
        samplers = []
        for part in ("product", "order"):
            target = REPOSITORY / "build" / f"profile-{case}-{part}.svg"
            (pid,) = (shop.children[name].process.pid for name in shop.names(part))
            options = ["--rate", str(RATE), "--duration", str(SECONDS - 2), "--output", str(target), "--pid", str(pid)]
            samplers.append(subprocess.Popen([sampler, "record", *options], stdout=subprocess.DEVNULL))
        # A cancelled order is not cancelled again: this load goes on far behind the first.
        run(url, kind, file, ORDERS // 2, connections=CONNECTIONS, seconds=SECONDS)
        failed = [each.wait() for each in samplers]
    print("\n".join(str(REPOSITORY / "build" / f"profile-{case}-{part}.svg") for part in ("product", "order")))
    if any(failed):
        print("py-spy could not look at every process: it needs root, or kernel.yama.ptrace_scope=0", file=sys.stderr)
    return 1 if any(failed) else 0
