"""The matrix of who may call what, on a cluster: by gRPC at the edge, and through port-forwards past it.

tests/e2e/test_auth_matrix.py also has REST, gRPC-Web and event streams. A port-forward ends if one connection is cut.
"""

import base64
from contextlib import AsyncExitStack, ExitStack

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from demo.signing_key import ALGORITHM
from tests.support.auth_callers import Keys, token_of
from tests.support.auth_doors import Grpc
from tests.support.auth_matrix import Identity, Mode, expected
from tests.support.auth_world import at_edge, check, create_world
from tests.support.oidc import Issuer, SigningKey
from tests.support.release import Release

PUBLIC = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVED = {
    "product": ("shop.product.v1.ProductService", "shop.product.v1.StockService", *PUBLIC),
    "order": ("shop.order.v1.OrderService", "shop.cart.v1.CartService", "shop.order.v1.StatusFeedService", *PUBLIC),
}


def secret(shop: Release, component: str, key: str) -> bytes:
    return base64.b64decode(shop.namespace.one("secret", shop.component(component))["data"][key])


def issuer(shop: Release) -> Issuer:
    """The demo issuer, whose key also signs the tokens that must be refused for what they say."""
    private = load_pem_private_key(secret(shop, "issuer", "key.pem"), None)
    jwks = shop.namespace.execute(f"deployment/{shop.component('issuer')}", "demo", "jwks")
    kid = jwks.partition('"kid": "')[2].partition('"')[0]
    url = f"http://{shop.component('issuer')}:8082"
    return Issuer(url, keys=[SigningKey(ALGORITHM, private, kid)])


@pytest.mark.timeout(900, func_only=True)
async def test_matrix_holds_at_the_edge_and_past_it(token_shop: Release) -> None:
    tokens = issuer(token_shop)
    keys = Keys(*(secret(token_shop, name, "current").decode() for name in ("internal", "tickets")))
    with ExitStack() as forwards:
        ports = {
            component: forwards.enter_context(
                token_shop.namespace.forward(f"service/{token_shop.component(component)}", port)
            )
            for component, port in (("gateway", 8080), ("product", 50052), ("order", 50053))
        }
        async with AsyncExitStack() as stack:
            edge, product, order = [
                await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ports[component]}"))
                for component in ("gateway", "product", "order")
            ]
            services = [
                Grpc(f"gRPC to {name}", channel, SERVED[name])
                for name, channel in (("product", product), ("order", order))
            ]
            world = await create_world(
                Mode(), services[0], services[1], lambda identity: token_of(tokens, identity), keys
            )
            doors = [
                *((door, expected) for door in services),
                (Grpc("gRPC", edge), at_edge),
            ]
            assert set(Identity) == {*world.headers}, "everybody has something to send"
            found = [line for identity in Identity for line in await check(doors, world, identity)]
    assert found == [], "\n".join(found)
