"""The commands that README and `make up` print, run as they are."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from local.commands import COMMANDS
from local.settings import REPOSITORY
from tests.support.rest import Rest
from tests.support.shop import RunningShop

BIN = str(Path(sys.executable).parent)


def port(target: str) -> str:
    return target.rpartition(":")[2]


def readme(shop: RunningShop) -> list[str]:
    """README's blocks for the shell, for a shop on other ports."""
    text = (REPOSITORY / "README.md").read_text()
    for default, target in (("8080", shop.target), ("50052", shop.product_target), ("50053", shop.order_target)):
        text = text.replace(f"localhost:{default}", f"localhost:{port(target)}")
    return [block.replace(".venv/bin", BIN) for block in re.findall(r"(?s)```sh\n(.*?)```", text)]


def printed(shop: RunningShop) -> list[str]:
    """What `make up` prints, without its headings."""
    text = COMMANDS.format(
        url=f"http://localhost:{port(shop.target)}",
        port=port(shop.target),
        product=port(shop.product_target),
        order=port(shop.order_target),
        grpcurl=f"{BIN}/grpcurl",
    )
    return ["\n".join(line for line in text.splitlines() if line.startswith(("  ", "'", "-", "&", '"')))]


def bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def fulfilment(shop: RunningShop) -> Iterator[None]:
    """Moves new orders on, as the demo does."""
    over = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=shop.url) as http:
            while not over.is_set():
                for order in http.get("/api/v1/orders", params={"pageSize": 5}).json()["orders"]:
                    for verb in ("process", "deliver", "receive"):
                        http.post(f"/api/v1/orders/{order['id']}:{verb}", json={})
                time.sleep(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("commands", [readme, printed])
@pytest.mark.usefixtures("fulfilment")
async def test_printed_commands_work(
    shop: RunningShop, rest: Rest, commands: Callable[[RunningShop], list[str]]
) -> None:
    """Also where the cheapest product is sold out."""
    cent = {"currencyCode": "EUR", "units": "0", "nanos": 10_000_000}
    await rest.product(name="Cheapest", stock=0, price=cent)
    await rest.product(name="Second", stock=5, price=cent)
    results = [bash(block) for block in commands(shop)]
    assert [done.returncode for done in results] == [0] * len(results), results
    assert "event: completed" in "".join(done.stdout for done in results)


async def test_refused_order_prints_the_reason(shop: RunningShop) -> None:
    (block,) = [each for each in readme(shop) if "orders/stream" in each]
    done = bash("PRODUCT=00000000-0000-4000-8000-000000000000\nORDER=$(" + block.split("ORDER=$(")[1])
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"[^\n]*00000000-0000-4000-8000-000000000000[^\n]*\n", done.stderr), done.stderr
