"""Shows where a process spends its time: `python -m bench profile CASE`, or `make profile CASE=create-order`.

A flame graph of each Python process that takes part in a case, sampled under the load of the comparison.
"""

import shutil
import subprocess

from bench.compare import CASES, CONNECTIONS, ORDERS, PRODUCTS, write_requests
from bench.load import LoadError, run
from bench.rivals.shop import compared_shop
from bench.table import SHOP
from local.settings import REPOSITORY

SECONDS = 12
PARTS = ("product", "order")

SAMPLES_PER_SECOND = 200


def profile(case: str) -> int:
    """Writes build/profile-CASE-PROCESS.svg for each process and prints the paths. Returns the exit status.

    Raises:
        LoadError: py-spy is missing, or is not allowed to inspect processes.
    """
    sampler = shutil.which("py-spy", path=str(REPOSITORY / ".venv/bin")) or shutil.which("py-spy")
    if sampler is None:
        raise LoadError("py-spy is missing: it comes with the extra `bench`")
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with compared_shop(PRODUCTS, ORDERS, rivals=()) as shop:
        file = write_requests(shop, case, SHOP)
        url, kind = shop.url(SHOP), CASES[case].kind
        run(url, kind, file, 1, connections=CONNECTIONS, seconds=2)
        targets = [REPOSITORY / "build" / f"profile-{case}-{part}.svg" for part in PARTS]
        samplers = []
        for part, target in zip(PARTS, targets, strict=True):
            (pid,) = (shop.children[name].process.pid for name in shop.names(part))
            target.unlink(missing_ok=True)
            options = [
                "--rate",
                str(SAMPLES_PER_SECOND),
                "--duration",
                str(SECONDS - 2),
                "--output",
                str(target),
                "--pid",
                str(pid),
            ]
            command = [sampler, "record", *options]
            samplers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        # An order can be cancelled only once, so this load begins far behind the first one.
        run(url, kind, file, ORDERS // 2, connections=CONNECTIONS, seconds=SECONDS)
        outputs = [each.communicate()[1] for each in samplers]
    for target in targets:
        if target.exists():
            print(target)
    if failed := [output for each, output in zip(samplers, outputs, strict=True) if each.returncode]:
        raise LoadError(failure_reason(failed[0]))
    return 0


def failure_reason(output: str) -> str:
    """Returns in one line why py-spy has failed."""
    if "permission denied" in output.lower() or "operation not permitted" in output.lower():
        return "py-spy may not inspect processes: run as root, or allow ptrace (kernel.yama.ptrace_scope=0, SYS_PTRACE)"
    return f"py-spy failed: {' '.join(output.split()) or 'without a message'}"
