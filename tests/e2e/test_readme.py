"""The commands that README and `make up` print, run as they are."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from local.examples import examples
from local.settings import REPOSITORY
from tests.support.rest import Rest
from tests.support.shop import RunningShop

BIN = str(Path(sys.executable).parent)

CENT = {"currencyCode": "EUR", "units": "0", "nanos": 10_000_000}


def port(target: str) -> str:
    return target.rpartition(":")[2]


def readme(shop: RunningShop) -> list[str]:
    """README's blocks for the shell, for a shop on other ports: those that need tokens, or those that do not."""
    text = (REPOSITORY / "README.md").read_text()
    for default, target in (("8080", shop.target), ("50052", shop.product_target), ("50053", shop.order_target)):
        text = text.replace(f"localhost:{default}", f"localhost:{port(target)}")
    blocks = re.findall(r"(?s)```sh\n(.*?)```", text)
    with_tokens = shop.settings.tokens.config is not None
    chosen = [block for block in blocks if ("make -s token" in block) is with_tokens]
    return [here(block.replace("make -s ", f"make -s STATE_DIR={shop.settings.state} ")) for block in chosen]


def printed(shop: RunningShop) -> list[str]:
    """What `make up` prints, without its headings, as one script."""
    return [here("\n".join(line for line in examples(shop.settings).splitlines() if line.startswith("  ")))]


def here(commands: str) -> str:
    """Commands for the programs of this test run."""
    commands = commands.replace("make -s ", f"make -s VENV={sys.prefix} -C {REPOSITORY} ")
    return commands.replace(".venv/bin", BIN)


def bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def fulfilment(shop: RunningShop) -> Iterator[None]:
    """Moves new orders on, as the demo does."""
    over = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=shop.url, headers=shop.authorization(staff=True)) as http:
            while not over.is_set():
                for order in http.get("/api/v1/orders", params={"pageSize": 5}).json()["orders"]:
                    for verb in ("process", "deliver", "receive"):
                        http.post(f"/api/v1/orders/{order['id']}:{verb}", json={})
                time.sleep(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_all(scripts: list[str]) -> str:
    """Returns what scripts print, all of which must succeed."""
    results = [bash(script) for script in scripts]
    assert [done.returncode for done in results] == [0] * len(results), results
    return "".join(done.stdout for done in results)


@pytest.mark.parametrize("commands", [readme, printed])
async def test_printed_commands_work(
    shop: RunningShop, rest: Rest, commands: Callable[[RunningShop], list[str]]
) -> None:
    """Also where the cheapest product is sold out."""
    await rest.product(name="Cheapest", stock=0, price=CENT)
    await rest.product(name="Second", stock=5, price=CENT)
    with fulfilment(shop):
        assert "event: completed" in run_all(commands(shop))


async def test_refused_product_prints_the_reason(shop: RunningShop) -> None:
    """Of README's first order, whose product does not exist."""
    done = bash(first_order(shop, "00000000-0000-4000-8000-000000000000"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "product 00000000-0000-4000-8000-000000000000 not found\n"


async def test_sold_out_product_prints_the_reason(shop: RunningShop, rest: Rest) -> None:
    """And the command that README has for this case helps."""
    product = await rest.product(name="Rare", stock=0)
    done = bash(first_order(shop, product["id"]))
    assert done.returncode == 1
    assert "INSUFFICIENT_STOCK" in done.stdout, "the cart says so"
    assert re.fullmatch(r"[^\n]*Rare[^\n]*\n", done.stderr), done.stderr
    (adjust,) = re.findall(r"(?m)^ {4}(curl .*:adjustStock.*)$", (REPOSITORY / "README.md").read_text())
    run_all([f"PRODUCT={product['id']}\n" + adjust.replace("localhost:8080", f"localhost:{port(shop.target)}")])
    assert await rest.stock(product["id"]) == 5


def first_order(shop: RunningShop, product_id: str) -> str:
    """README's first order, of a product."""
    (block,) = [each for each in readme(shop) if "orders/stream" in each]
    return re.sub(r"(?s)PRODUCT=\$\(.*?\n(?=CART=)", f"PRODUCT={product_id}\n", block)


async def test_printed_commands_with_tokens_work(shop_with_tokens: RunningShop) -> None:
    """A guest orders, and staff create the product."""
    with fulfilment(shop_with_tokens):
        output = run_all(printed(shop_with_tokens))
    assert "event: completed" in output
    assert re.search(r'"ticket": *"ey', output), "a ticket for a URL"


async def test_readme_shows_orders_to_staff_and_to_their_customer(shop_with_tokens: RunningShop) -> None:
    staff = shop_with_tokens.authorization(staff=True)
    async with httpx.AsyncClient(base_url=shop_with_tokens.url, headers=staff) as http:
        product, placed = await Rest(http).product(), {}
        for subject in ("ada", "grace"):
            http.headers.update(shop_with_tokens.authorization(subject))
            placed[subject] = (await Rest(http).order(product["id"]))["id"]
    (block,) = readme(shop_with_tokens)
    for_staff, for_ada, for_guest = (
        json.loads(run_all([command])) for command in block.splitlines() if command.startswith("curl")
    )
    assert len(for_staff["orders"]) >= 2
    seen = {each["id"] for each in for_ada["orders"]}
    assert placed["ada"] in seen
    assert placed["grace"] not in seen
    assert for_guest["code"] == 16
