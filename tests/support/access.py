"""The credential of the shop's own processes, as tests use it."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import grpc

from runtime.access import rules
from runtime.access.config import AccessConfig
from runtime.access.credential import Credential
from runtime.access.gate import Gate
from runtime.access.rules import Level, Rule


@cache
def credentials() -> Path:
    """The folder of a credential that all processes of this test run share."""
    folder = Path(tempfile.mkdtemp(prefix="shop-credentials-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    (folder / "current").write_text(token_hex(32))
    return folder


def open_access() -> AccessConfig:
    """The configuration of a shop that verifies no tokens."""
    return AccessConfig(tokens=None, credentials=credentials())


def credential() -> Credential:
    return Credential(open_access())


def open_gate(*public: str) -> Gate:
    """A gate that lets everybody call what is not internal. The services named have no proto, and are public."""
    rules.FOREIGN.update(dict.fromkeys(public, Rule(Level.PUBLIC)))
    return Gate(open_access(), credential(), None)


Metadata = Sequence[tuple[str, str]]


class _Sender(grpc.aio.ClientInterceptor):
    """Adds metadata to each call."""

    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    def _with_metadata(self, details: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._metadata())
        return details._replace(metadata=metadata)


class _Unary(_Sender, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_metadata(client_call_details), request)


class _Responses(_Sender, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_metadata(client_call_details), request)


class _Stream(_Sender, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._with_metadata(client_call_details), request_iterator)


def senders(metadata: Callable[[], Metadata]) -> list[grpc.aio.ClientInterceptor]:
    """Returns the interceptors of a channel that sends metadata with each call."""
    return [_Unary(metadata), _Responses(metadata), _Stream(metadata)]


def bearer(token: str) -> tuple[tuple[str, str]]:
    """Returns the metadata of a caller with a token."""
    return (("authorization", f"Bearer {token}"),)


def internal_channel(address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """A channel that sends the credential with each call that the shop's own processes make."""
    interceptors = [_Unary(credential().metadata), _Stream(credential().metadata)]
    return grpc.aio.insecure_channel(address, options=list(options), interceptors=interceptors)
