"""Runs an attack beside an honest client, and checks what came of it."""

import asyncio
import json
import os
import sys

from tests.abuse.conftest import Row
from tests.abuse.honest import Honest
from tests.abuse.shop import PARTS, AbuseShop

SECONDS = 6.0
"""How long each attack lasts."""

MIB = 1024**2


async def check_attack(
    shop: AbuseShop, attack: str, target: str, honest: Honest, rows: list[Row], max_errors: float
) -> None:
    """Attacks a shop. Fails if a process takes more memory than it may, or if too many calls of the honest client fail.

    Args:
        shop: The shop, which was started anew.
        attack: The name of the attack.
        target: What the attack is told besides.
        honest: The honest client.
        rows: Gets a row with what was measured.
        max_errors: The share of the honest client's calls that may fail.
    """
    async with honest.busy():
        counts = await _attack(attack, shop.port, target)
    peaks = {part: shop.peak(part) for part in PARTS}
    shop.check()
    rows.append(
        Row(
            attack=attack,
            connections=counts["connections"],
            **{f"{part}_mib": -(-peaks[part] // MIB) for part in PARTS},
            calls=len(honest.seconds),
            errors=len(honest.errors),
            p50_ms=honest.p50,
            p99_ms=honest.p99,
        )
    )
    print(counts, sorted(set(honest.errors))[:10])
    assert {part for part, peak in peaks.items() if peak > shop.limits[part]} == set(), peaks
    assert len(honest.errors) <= max_errors * len(honest.seconds), (len(honest.errors), sorted(set(honest.errors))[:10])


async def _attack(name: str, port: int, target: str) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        # Attackers have machines of their own.
        *("nice", "-n5", sys.executable, "-m", "tests.abuse.attack", name, str(port), str(SECONDS), target),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    counts: dict[str, int] = json.loads(output)
    return counts
