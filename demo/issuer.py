"""The demo's issuer, for trying: publishes the key that signs its tokens, as an OpenID provider does.

It gives tokens of customers without a password (`token_endpoint`). Tokens of staff need the private key: `demo token`
makes them.
"""

from urllib.parse import urlsplit

from aiohttp import web

from demo import token_endpoint
from demo.signing_key import ALGORITHM, SigningKey
from demo.tokens import TokenMaker
from runtime.access.config import TokenConfig
from runtime.config import ConfigError

PORT = 8082
"""The port that it listens on by default."""


def application(key: SigningKey, config: TokenConfig) -> web.Application:
    """Returns the application with its routes.

    Args:
        key: The key that signs tokens.
        config: Which tokens the shop accepts. The issuer is a URL, and the keys are below its path.

    Raises:
        ConfigError: The issuer is not a URL, or the shop would not accept the tokens.
    """
    issuer = config.issuer
    url = urlsplit(issuer)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise ConfigError(f"AUTH_ISSUER must be an http or https URL, not {issuer!r}")
    base, path = issuer.rstrip("/"), url.path.rstrip("/")
    jwks = key.jwks()

    async def discovery(_: web.Request) -> web.Response:
        # What OpenID Connect Discovery requires (section 3), as far as there is anything.
        return web.json_response(
            {
                "issuer": issuer,
                "jwks_uri": f"{base}/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
            }
        )

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(text=jwks)

    app = web.Application()
    app.router.add_post(token_endpoint.PATH, token_endpoint.handler(TokenMaker(key, config)))
    app.router.add_get(f"{path}/.well-known/openid-configuration", discovery)
    app.router.add_get(f"{path}/jwks", keys)
    return app
