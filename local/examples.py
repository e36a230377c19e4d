"""The commands that `make up` prints for trying the shop."""

import os
import shlex

from local.settings import DEFAULT_STATE, REPOSITORY, Settings

PRODUCT = '{"name": "Oak step stool", "category": "Home", "stock": 5, "price": {"currencyCode": "EUR", "units": "79"}}'

JSON = "-H 'Content-Type: application/json'"

TOKEN = '-H "Authorization: Bearer $TOKEN"'  # noqa: S105 - the name of a variable

GUEST = '-H "Cart-Secret: ${CART#* }"'

TICKET = '-H "Order-Ticket: ${ORDER#* }"'


def examples(settings: Settings) -> str:
    """Returns what to try, in words and commands for a shell."""
    tokens = settings.tokens.config
    grpcurl = os.path.relpath(REPOSITORY / ".venv" / "bin" / "grpcurl")
    lines = [
        f"REST, SSE, gRPC and gRPC-Web: {settings.url}; "
        f"product: localhost:{settings.product_port}; order: localhost:{settings.order_port}",
        *([f"live numbers: {settings.url}/debug"] if settings.telemetry else []),
        *_access(settings),
        "",
        "list products:",
        f"  curl -s '{settings.url}/api/v1/products?pageSize=3'",
        "create a product, as staff:" if tokens else "create a product:",
        f"  curl -s -X POST {settings.url}/api/v1/products {TOKEN + ' ' if tokens else ''}{JSON} -d '{PRODUCT}'",
        *_cart(settings.url, TOKEN if tokens and not tokens.guests else GUEST),
        *_follow(settings.url, TOKEN if tokens and not tokens.guests else TICKET if tokens else ""),
        "gRPC:",
        f"  {grpcurl} -plaintext localhost:{settings.port} list",
    ]
    return "\n".join(lines) + "\n"


def _access(settings: Settings) -> list[str]:
    if not settings.tokens.config:
        return [
            f"no authentication: whoever reaches {settings.url} can read and change everything;"
            " try `make up AUTH_MODE=jwt`"
        ]
    if not settings.tokens.own:
        issuer = settings.tokens.config.issuer
        return [f"authentication: tokens of {issuer}; the commands below need one in the variable TOKEN"]
    return [
        "authentication: tokens, for trying only: anyone gets a customer's at POST /demo/token; get one for staff:",
        f"  TOKEN=$({_make(settings)} token ROLE=staff)",
    ]


def _make(settings: Settings) -> str:
    """Returns how to run make for this shop from the current folder."""
    folder = os.path.relpath(REPOSITORY)
    state = f" STATE_DIR={shlex.quote(str(settings.state))}" if settings.state != DEFAULT_STATE else ""
    return ("make -s" if folder == "." else f"make -sC {shlex.quote(folder)}") + state


def _cart(url: str, holder: str) -> list[str]:
    """Returns the commands that fill a cart and order it. They keep the order and its ticket, if any, in ORDER.

    Args:
        url: The address of the edge.
        holder: The header that opens the cart.
    """
    creator = "" if holder == GUEST else f"{holder} "
    cart = f'"{url}/api/v1/carts/${{CART% *}}'
    item = """'{"productId": "'$PRODUCT'", "quantity": 1}'"""
    version = """'json.dumps({"etag": it["etag"], "expectedTotal": it["total"]})'"""
    in_stock = 'next((each["id"] for each in it["products"] if each["stock"] != "0"), "")'
    return [
        "define a command that prints a part of an answer, or the message of the shop if it refuses:",
        """  pick() { python3 -c "import json, sys; it = json.load(sys.stdin); print(sys.exit(it['message']) """
        """if 'code' in it else $1)"; }""",
        "put the cheapest product in stock into a cart, and look at it:",
        f"  PRODUCT=$(curl -s '{url}/api/v1/products?pageSize=100&orderBy=price' "
        f"| pick '{in_stock} or sys.exit(\"everything is sold out\")')",
        f"  CART=$(curl -s -X POST {url}/api/v1/carts {creator}{JSON} -d '{{}}' "
        """| pick 'it["cart"]["id"], it.get("secret", "")')""",
        f'  curl -s -X POST {cart}:add" {holder} {JSON} -d {item}',
        "order what the cart has now, at the total that it shows (sent again, it is still one order):",
        f'  CHECKOUT=$(curl -s {cart}" {holder} | pick {version})',
        f'  ORDER=$(curl -s -X POST {cart}:checkout" {holder} {JSON} -d "$CHECKOUT" '
        """| pick 'it["id"], it.get("ticket", "")')""",
    ]


def _follow(url: str, viewer: str) -> list[str]:
    """Returns the commands that follow the order. `viewer` is the header that opens it."""
    order = "${ORDER% *}"
    follow = [
        "follow the order's status" + (", with the ticket that came with it:" if viewer == TICKET else ":"),
        f'  curl -N {viewer and viewer + " "}"{url}/api/orders/stream?order_id={order}"',
    ]
    if viewer != TICKET:
        return follow
    return [
        *follow,
        "get a ticket for the URL of a stream, as a browser does:",
        f"  curl -s -X POST \"{url}/api/v1/orders/{order}:ticket\" {TICKET} {JSON} -d '{{}}'",
    ]
