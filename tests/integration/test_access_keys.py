"""The keys of tokens are found, refreshed and rotated, and an issuer that is away fails nobody whose key is known."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from runtime.access import keys as keys_module
from runtime.access.caller import Caller
from runtime.access.config import AccessConfig
from runtime.access.gate import MAX_WAITING_ELSEWHERE, Gate
from runtime.access.key_sources import FETCH_MIN_INTERVAL, DiscoverySource
from runtime.access.opening import open_gate
from runtime.config import Env
from runtime.errors import ApiError
from tests.support.access import credential, credentials
from tests.support.eventually import eventually
from tests.support.oidc import DISCOVERY, JWKS, Provider, new_key, oidc_provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches keep a distance of 0.1 seconds."""
    monkeypatch.setattr(DiscoverySource, "min_interval", 0.1)


@asynccontextmanager
async def opened(provider: Provider, **variables: str) -> AsyncIterator[Gate]:
    """The gate of a process that accepts the provider's tokens."""
    environment = provider.variables(INTERNAL_CREDENTIALS=str(credentials()), **variables)
    async with open_gate(AccessConfig.from_env(Env(environment)), credential()) as gate:
        yield gate


async def verify(gate: Gate, token: str) -> Caller:
    return await gate.identify([f"Bearer {token}"])


async def code_of(gate: Gate, token: str) -> str:
    """The code that a caller with this token gets."""
    try:
        await verify(gate, token)
    except ApiError as error:
        return error.code.name
    return "OK"


async def test_keys_are_found_by_discovery(provider: Provider) -> None:
    async with opened(provider) as gate:
        assert (await verify(gate, provider.token("ada", staff=True))) == Caller("ada", True, "ada")
    assert provider.fetches[DISCOVERY] >= 1


async def test_keys_are_found_by_url(provider: Provider) -> None:
    async with opened(provider, AUTH_JWKS_URL=provider.jwks_url) as gate:
        assert (await verify(gate, provider.token("ada"))).subject == "ada"
    assert provider.fetches[DISCOVERY] == 0


async def test_known_keys_are_passed_on_as_they_are_published(provider: Provider) -> None:
    provider.go_away()
    async with opened(provider) as gate:
        assert gate.keys is not None
        assert gate.keys.public_jwks() is None
        provider.come_back()
        await eventually(lambda: gate.keys and gate.keys.public_jwks())
        assert json.loads(gate.keys.public_jwks() or "") == provider.jwks()


async def test_process_starts_without_the_provider(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    """A caller with a token is told to come back, and the outage is logged once."""
    caplog.set_level(logging.INFO, "runtime.access.keys")
    provider.go_away()
    async with opened(provider) as gate:
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                await verify(gate, provider.token())
            assert (caught.value.code.name, caught.value.retry_after) == ("UNAVAILABLE", 1)
        assert await code_of(gate, "abc") == "UNAUTHENTICATED"
        provider.come_back()
        assert await code_of(gate, provider.token()) == "OK"
        await eventually(lambda: "the keys of tokens can be loaded again" in caplog.text)
    failures = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    place = provider.url + DISCOVERY
    assert failures == [f"cannot load the keys of tokens from {place}: Connection refused"]


async def test_known_keys_go_on_while_the_provider_is_away(provider: Provider) -> None:
    async with opened(provider, AUTH_JWKS_REFRESH="1") as gate:
        assert await code_of(gate, provider.token()) == "OK"
        provider.go_away()
        old = provider.keys[-1]
        token = provider.token(key=provider.rotate())
        for _ in range(2):
            assert await code_of(gate, token) == "UNAVAILABLE"
            assert await code_of(gate, provider.token("bob", key=old)) == "OK"


async def test_new_key_is_looked_for_at_once(provider: Provider) -> None:
    async with opened(provider, AUTH_JWKS_REFRESH="86400") as gate:
        await verify(gate, provider.token())
        provider.rotate()
        assert (await verify(gate, provider.token("bob"))).subject == "bob"


async def test_removed_key_is_noticed_in_the_background(provider: Provider) -> None:
    async with opened(provider, AUTH_JWKS_REFRESH="1") as gate:
        token = provider.token()
        await verify(gate, token)
        provider.rotate(keep=False)

        async def refused() -> bool:
            return await code_of(gate, token) == "UNAUTHENTICATED"

        await eventually(refused)


async def test_calls_share_fetches_which_keep_a_distance(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up keys cannot make the shop flood the provider."""
    monkeypatch.setattr(DiscoverySource, "min_interval", FETCH_MIN_INTERVAL)
    async with opened(provider) as gate:
        await verify(gate, provider.token())
        clock = asyncio.get_running_loop().time
        before, start = provider.fetches[JWKS], clock()
        for _ in range(2):
            tokens = [provider.token(key=new_key()) for _ in range(MAX_WAITING_ELSEWHERE)]
            codes = await asyncio.gather(*(code_of(gate, token) for token in tokens))
            assert set(codes) == {"UNAUTHENTICATED"}
        fetches, seconds = provider.fetches[JWKS] - before, clock() - start
        assert 2 <= fetches <= 1 + seconds / FETCH_MIN_INTERVAL


async def test_call_that_arrives_during_a_fetch_finds_a_newer_key(provider: Provider) -> None:
    """That fetch may have begun before the key was published."""
    async with opened(provider) as gate:
        await verify(gate, provider.token())
        stale = json.dumps(provider.jwks())

        def stale_once() -> web.Response:
            del provider.responses[JWKS]
            return web.Response(text=stale)

        provider.responses[JWKS] = stale_once
        provider.gate.clear()
        before = provider.fetches[DISCOVERY]
        first = asyncio.ensure_future(code_of(gate, provider.token(key=new_key())))
        await eventually(lambda: provider.fetches[DISCOVERY] > before)
        provider.rotate()
        second = asyncio.ensure_future(code_of(gate, provider.token()))
        await asyncio.sleep(0)
        provider.gate.set()
        assert await first == "UNAUTHENTICATED"
        assert await second == "OK"


async def test_tokens_of_a_removed_key_are_refused_without_waiting(provider: Provider) -> None:
    """There may be many of them, and their callers should get new ones."""
    async with opened(provider, AUTH_JWKS_REFRESH="1") as gate:
        tokens = [provider.token(f"user {number}") for number in range(3 * MAX_WAITING_ELSEWHERE)]
        assert await code_of(gate, tokens[0]) == "OK"
        provider.rotate(keep=False)
        assert await code_of(gate, provider.token()) == "OK"
        assert await code_of(gate, tokens[0]) == "UNAUTHENTICATED"
        assert {*await asyncio.gather(*(code_of(gate, token) for token in tokens))} == {"UNAUTHENTICATED"}


async def test_number_of_waiting_calls_is_limited(provider: Provider) -> None:
    async with opened(provider) as gate:
        await verify(gate, provider.token())
        provider.gate.clear()
        key = provider.rotate()
        waiting = [asyncio.ensure_future(code_of(gate, provider.token(key=key))) for _ in range(MAX_WAITING_ELSEWHERE)]
        await asyncio.sleep(0)
        assert await code_of(gate, provider.token(key=key)) == "UNAVAILABLE"
        waiting.pop().cancel()
        await asyncio.sleep(0)
        waiting.append(asyncio.ensure_future(code_of(gate, provider.token(key=key))))
        provider.gate.set()
        assert set(await asyncio.gather(*waiting)) == {"OK"}


async def test_provider_that_hangs_is_an_outage(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys_module, "LOAD_TIMEOUT", 0.2)
    provider.gate.clear()
    async with opened(provider) as gate:
        assert await code_of(gate, provider.token()) == "UNAVAILABLE"
        provider.gate.set()

        async def accepted() -> bool:
            return await code_of(gate, provider.token()) == "OK"

        await eventually(accepted)
    assert "no response within 0.2 s" in caplog.text


async def test_bad_key_set_is_an_outage(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(provider) as gate:
        assert await code_of(gate, provider.token()) == "OK"
        provider.responses[JWKS] = lambda: web.json_response({"keys": []})
        assert await code_of(gate, provider.token(key=new_key())) == "UNAVAILABLE"
        assert await code_of(gate, provider.token("bob")) == "OK"
    assert "no key that can be used" in caplog.text


async def test_file_of_keys_is_seen_when_kubernetes_replaces_it(provider: Provider, tmp_path: Path) -> None:
    """The kubelet writes a new folder, and exchanges a symbolic link."""

    def publish(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "jwks.json").write_text(text)
        (tmp_path / "..tmp").symlink_to(name)
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    publish("first", json.dumps(provider.jwks()))
    file = tmp_path / "jwks.json"
    file.symlink_to("..data/jwks.json")
    async with opened(provider, AUTH_JWKS_FILE=str(file)) as gate:
        old = provider.token()
        await verify(gate, old)
        provider.rotate(keep=False)
        publish("second", json.dumps(provider.jwks()))
        await verify(gate, provider.token("bob"))
        assert await code_of(gate, old) == "UNAUTHENTICATED"
    assert not provider.fetches


async def test_damaged_file_of_keys_leaves_what_was_known(
    provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtime.access.keys")
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(provider.jwks()))
    async with opened(provider, AUTH_JWKS_FILE=str(file)) as gate:
        file.write_text("{")
        await eventually(lambda: f"cannot load the keys of tokens from {file}: not JSON" in caplog.text)
        file.unlink()
        await eventually(lambda: "No such file" in caplog.text)
        assert await code_of(gate, provider.token()) == "OK"
        assert await code_of(gate, provider.token(key=provider.rotate())) == "UNAVAILABLE"
        file.write_text(json.dumps(provider.jwks()))
        assert await code_of(gate, provider.token()) == "OK"
    assert caplog.text.count("can be loaded again") == 1


async def test_start_says_who_is_authenticated(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtime.access")
    async with opened(provider):
        assert f"callers need tokens of {provider.url} for shop" in caplog.text
    caplog.clear()
    config = AccessConfig.from_env(Env({"INTERNAL_CREDENTIALS": str(credentials())}))
    async with open_gate(config, credential()) as gate:
        assert gate.keys is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no caller is authenticated" in record.getMessage()


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({}, False),
        ({"AUTH_JWKS_URL": "http://localhost:1/keys"}, False),
        ({"AUTH_JWKS_URL": "http://id.invalid/keys"}, True),
        ({"AUTH_ISSUER": "http://10.255.255.1"}, True),
        ({"AUTH_ISSUER": "https://id.invalid"}, False),
    ],
)
async def test_plain_http_is_warned_of(
    provider: Provider, variables: dict[str, str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    environment = provider.variables(INTERNAL_CREDENTIALS=str(credentials())) | variables
    async with open_gate(AccessConfig.from_env(Env(environment)), credential()):
        pass
    assert ("is not https" in caplog.text) is warned
