"""Every method, called by everybody, in every way: whoever may not call is refused, and in the one form of errors."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal
from uuid import uuid4

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection_pb2

from runtime.access.secret import CURRENT
from tests.support.auth_callers import Keys, token_of
from tests.support.auth_doors import Door, Events, Grpc, RestDoor, Web, invoke
from tests.support.auth_matrix import CARTS, ORDERS, SECRETS, TICKETS, Identity, Method, Mode, expected, methods, named
from tests.support.auth_requests import SAMPLES, Subject
from tests.support.auth_world import IN_URL, Wanted, World, at_edge, check, create_world, in_url
from tests.support.oidc import Provider, oidc_provider
from tests.support.shop import RunningShop, run_shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

JWT, NO_GUESTS, NONE = "jwt", "jwt without guests", "none"
MODES = {JWT: Mode(), NO_GUESTS: Mode(guests=False), NONE: Mode(tokens=False)}

FOREIGN = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVED = {
    "product": ("shop.product.v1.ProductService", "shop.product.v1.StockService", *FOREIGN),
    "order": (ORDERS, CARTS, "shop.order.v1.StatusFeedService", *FOREIGN),
    "sidecar": FOREIGN,
}
"""The services of each process."""


@dataclass(frozen=True)
class Matrix:
    """A running shop, and the ways into it."""

    shop: RunningShop
    provider: Provider
    world: World
    past_the_edge: Mapping[str, Grpc]
    edge: list[Door]
    in_url: Events


@contextmanager
def running(mode: Mode, provider: Provider, folder: pytest.TempPathFactory) -> Iterator[RunningShop]:
    variables = provider.variables(AUTH_GUESTS=str(mode.guests).lower()) if mode.tokens else {}
    with run_shop(folder.mktemp("matrix"), variables) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Matrix]:
    mode = MODES[request.param]
    with oidc_provider() as provider, running(mode, provider, tmp_path_factory) as shop:
        async with AsyncExitStack() as stack:
            targets = {
                "product": shop.product_target,
                "order": shop.order_target,
                "sidecar": f"127.0.0.1:{shop.shop.sse_grpc_port}",
            }
            past_the_edge = {
                name: Grpc(
                    f"gRPC to {name}", await stack.enter_async_context(grpc.aio.insecure_channel(target)), SERVED[name]
                )
                for name, target in targets.items()
            }
            edge = await stack.enter_async_context(grpc.aio.insecure_channel(shop.target))
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=shop.url, timeout=20))
            state = shop.shop.logs.parent
            keys = Keys(
                (state / "credentials" / CURRENT).read_text(),
                (state / "ticket-keys" / CURRENT).read_text(),
            )
            world = await create_world(
                mode,
                past_the_edge["product"],
                past_the_edge["order"],
                lambda identity: token_of(provider, identity),
                keys,
            )
            stream = "/api/v1/orders/{id}/status/stream"
            yield Matrix(
                shop,
                provider,
                world,
                past_the_edge,
                [
                    Grpc("gRPC", edge),
                    Web(http),
                    RestDoor(http),
                    Events("an event stream", http, stream),
                    Events("an EventSource", http, "/api/orders/stream?order_id={id}", "text/event-stream"),
                ],
                Events(IN_URL, http, "/api/orders/stream?order_id={id}", "text/event-stream"),
            )


OPEN = (
    *(Identity.NOBODY, Identity.MALFORMED, Identity.EXPIRED, Identity.STAFF),
    *(Identity.FORGED_TICKET, Identity.CREDENTIAL, Identity.WRONG_CREDENTIAL),
    *(Identity.CART_SECRET, Identity.OTHER_SECRET, Identity.WRONG_SECRET),
)
"""Those who call the shop that verifies no tokens: all are equal there, but for the secrets of their carts."""


async def check_all_doors(matrix: Matrix, identity: Identity) -> None:
    doors: list[tuple[Door, Wanted]] = [(door, expected) for door in matrix.past_the_edge.values()]
    doors += [(door, at_edge) for door in matrix.edge]
    if identity in matrix.world.url_tickets:
        doors.append((matrix.in_url, in_url))
    found = await check(doors, matrix.world, identity)
    assert found == [], "\n".join(found)


@pytest.mark.parametrize("identity", Identity)
@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
async def test_shop_with_tokens(matrix: Matrix, identity: Identity) -> None:
    await check_all_doors(matrix, identity)


@pytest.mark.parametrize("identity", [Identity.NOBODY, Identity.OWNER, Identity.STAFF, *TICKETS, *SECRETS])
@pytest.mark.parametrize("matrix", [NO_GUESTS], indirect=True, scope="module")
async def test_shop_without_guests(matrix: Matrix, identity: Identity) -> None:
    await check_all_doors(matrix, identity)


@pytest.mark.parametrize("identity", OPEN)
@pytest.mark.parametrize("matrix", [NONE], indirect=True, scope="module")
async def test_shop_that_verifies_no_tokens(matrix: Matrix, identity: Identity) -> None:
    await check_all_doors(matrix, identity)


async def test_every_method_has_a_request() -> None:
    """So a new method cannot be left out."""
    assert {method.full_name for method in methods()} == set(SAMPLES)


@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
async def test_processes_serve_no_other_services(matrix: Matrix) -> None:
    """Otherwise the matrix would not call them."""
    reflection = named("grpc.reflection.v1.ServerReflection.ServerReflectionInfo")
    for name, door in matrix.past_the_edge.items():
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        listed = (await invoke(door.channel, reflection, request, ())).list_services_response.service
        own = {each.name for each in listed}
        if name == "sidecar":
            assert own - set(FOREIGN) <= set(SERVED["product"]) | set(SERVED["order"])
        else:
            assert own == set(SERVED[name])
    assert {method.service for method in methods()} == {each for services in SERVED.values() for each in services}


async def check_seems_not_to_exist(
    matrix: Matrix, method: Method, identity: Identity, field: Literal["order", "cart"]
) -> None:
    """Checks that the refusal of a method differs from that for an unknown id in nothing but the id."""
    subject = matrix.world.subject(identity)

    async def refusal(door: Door, about: Subject, name: str) -> str:
        answer = await door.call(method, SAMPLES[method.full_name].make(about), matrix.world.headers[identity])
        assert answer.code == "NOT_FOUND"
        # What each response has of its own: its id, and the time.
        varying = r"'x-request-id', '[^']+'|'date', '[^']+'"
        return re.sub(varying, "", answer.text.replace(name, "ID"))

    existing: str = getattr(subject, field)
    unknown = str(uuid4())
    for door in (matrix.past_the_edge["order"], *matrix.edge):
        if door.serves(method):
            expected = await refusal(door, replace(subject, **{field: unknown}), unknown)
            assert await refusal(door, subject, existing) == expected


@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
@pytest.mark.parametrize("name", ["GetOrder", "CancelOrder", "StreamOrderStatus", "CreateOrderTicket"])
async def test_order_of_another_seems_not_to_exist(matrix: Matrix, name: str) -> None:
    await check_seems_not_to_exist(matrix, named(f"{ORDERS}.{name}"), Identity.ANOTHER_CUSTOMER, "order")


@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
@pytest.mark.parametrize("identity", [Identity.ANOTHER_CUSTOMER, Identity.STAFF, Identity.OTHER_SECRET])
@pytest.mark.parametrize("name", [method.name for method in methods() if method.names_a_cart])
async def test_cart_of_another_seems_not_to_exist(matrix: Matrix, name: str, identity: Identity) -> None:
    await check_seems_not_to_exist(matrix, named(f"{CARTS}.{name}"), identity, "cart")


@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
@pytest.mark.parametrize("parameter", ["access_token", "authorization", "token", "jwt", "order-ticket"])
async def test_token_in_the_url_opens_nothing(matrix: Matrix, parameter: str) -> None:
    """It would be in logs and histories."""
    order = matrix.world.owners_order
    value = matrix.world.headers[Identity.STAFF][0][1].partition(" ")[2]
    async with httpx.AsyncClient(base_url=matrix.shop.url, timeout=20) as http:
        for path in (f"/api/v1/orders/{order}", "/api/v1/orders", f"/api/v1/orders/{order}/status/stream"):
            answer = await http.get(path, params={parameter: value})
            assert answer.status_code in (400, 401), path
            assert value not in answer.text


@pytest.mark.parametrize("matrix", [JWT], indirect=True, scope="module")
@pytest.mark.parametrize("parameter", ["cart-secret", "cart_secret", "cartSecret", "secret"])
async def test_secret_in_the_url_opens_nothing(matrix: Matrix, parameter: str) -> None:
    cart = matrix.world.guests_cart
    async with httpx.AsyncClient(base_url=matrix.shop.url, timeout=20) as http:
        answer = await http.get(f"/api/v1/carts/{cart.id}", params={parameter: cart.secret})
        assert answer.status_code in (400, 401)
        assert cart.secret not in answer.text
