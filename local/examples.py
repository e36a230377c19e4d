"""The commands that `make up` prints for trying the shop."""

import os
import shlex

from local.settings import DEFAULT_STATE, REPOSITORY, Settings

PRODUCT = '{"name": "Oak step stool", "category": "Home", "stock": 5, "price": {"currencyCode": "EUR", "units": "79"}}'

JSON = "-H 'Content-Type: application/json'"

TOKEN = '-H "Authorization: Bearer $TOKEN"'  # noqa: S105 - the name of a variable


def examples(settings: Settings) -> str:
    """Returns what to try, in words and commands for a shell."""
    tokens = settings.tokens.config
    grpcurl = os.path.relpath(REPOSITORY / ".venv" / "bin" / "grpcurl")
    lines = [
        f"REST, SSE, gRPC and gRPC-Web: {settings.url}; "
        f"product: localhost:{settings.product_port}; order: localhost:{settings.order_port}",
        *_access(settings),
        "",
        "list products:",
        f"  curl -s '{settings.url}/api/v1/products?pageSize=3'",
        "create a product, as staff:" if tokens else "create a product:",
        f"  curl -s -X POST {settings.url}/api/v1/products {TOKEN + ' ' if tokens else ''}{JSON} -d '{PRODUCT}'",
        *(_guest_order(settings.url) if tokens and tokens.guests else _order(settings.url, TOKEN if tokens else "")),
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
        "authentication: tokens; get one for staff, or with ROLE=customer for a customer:",
        f"  TOKEN=$({_make(settings)} token ROLE=staff)",
    ]


def _make(settings: Settings) -> str:
    """Returns how to run make for this shop from the current folder."""
    folder = os.path.relpath(REPOSITORY)
    state = f" STATE_DIR={shlex.quote(str(settings.state))}" if settings.state != DEFAULT_STATE else ""
    return ("make -s" if folder == "." else f"make -sC {shlex.quote(folder)}") + state


def _order(url: str, header: str) -> list[str]:
    header = header and header + " "
    return [
        "place an order and follow its status:",
        *_place(url, header, 'order.get("id")'),
        f'  curl -N {header}"{url}/api/orders/stream?order_id=$ORDER"',
    ]


def _guest_order(url: str) -> list[str]:
    ticket = '-H "Order-Ticket: ${ORDER#* }"'
    return [
        "place an order as a guest, and follow its status with the ticket that came with it:",
        *_place(url, "", '"id" in order and order["id"] + " " + order["ticket"]'),
        f'  curl -N {ticket} "{url}/api/orders/stream?order_id=${{ORDER% *}}"',
        "get a ticket for the URL of a stream, as a browser does:",
        f"  curl -s -X POST \"{url}/api/v1/orders/${{ORDER% *}}:ticket\" {ticket} {JSON} -d '{{}}'",
    ]


def _place(url: str, header: str, printed: str) -> list[str]:
    """Returns the commands that place an order and keep in ORDER what they print of it."""
    in_stock = 'next(item["id"] for item in json.load(sys.stdin)["products"] if item["stock"] != "0")'
    body = """'{"items": [{"productId": "'$PRODUCT'", "quantity": 1}]}'"""
    answer = f'order = json.load(sys.stdin); print({printed} or sys.exit(order["message"]))'
    return [
        f"  PRODUCT=$(curl -s '{url}/api/v1/products?pageSize=100&orderBy=price' "
        f"| python3 -c 'import json, sys; print({in_stock})')",
        f"  ORDER=$(curl -s -X POST {url}/api/v1/orders {header}{JSON} -d {body} "
        f"| python3 -c 'import json, sys; {answer}') && \\",
    ]
