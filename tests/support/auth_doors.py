"""The ways into a shop: REST, gRPC and gRPC-Web through the edge, gRPC past the edge, and event streams."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.api import annotations_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from tests.support.auth_matrix import Method

Headers = tuple[tuple[str, str], ...]

TIMEOUT = 20.0
"""Seconds that a call may take."""

STREAM = "shop.order.v1.OrderService.StreamOrderStatus"


@dataclass(frozen=True)
class Answer:
    """What a caller got."""

    code: str
    reason: str = ""
    challenge: str = ""
    """The WWW-Authenticate header."""
    http: int = 0
    """The HTTP status; 0 for native gRPC."""
    text: str = ""
    """All of an error that the caller can read."""
    problem: str = ""
    """What is wrong with the form of the answer."""


class Door(Protocol):
    """One way into a shop."""

    name: str
    is_edge: bool
    """Whether it is the edge, and not a service."""

    def serves(self, method: Method) -> bool:
        """Returns whether a method can be called in this way at all."""
        ...

    async def call(self, method: Method, request: Message, headers: Headers) -> Answer:
        """Calls a method. Of a stream, the first response counts."""
        ...


class Grpc:
    """Native gRPC."""

    def __init__(self, name: str, channel: grpc.aio.Channel, services: Sequence[str] | None = None) -> None:
        """`services` are those that a process serves; None for the edge, at which all are tried."""
        self.name = name
        self.channel = channel
        self.is_edge = services is None
        self._services = services

    def serves(self, method: Method) -> bool:
        return self._services is None or method.service in self._services

    async def call(self, method: Method, request: Message, headers: Headers) -> Answer:
        try:
            await invoke(self.channel, method, request, headers)
        except grpc.aio.AioRpcError as error:
            return _grpc_answer(error)
        return Answer("OK")


async def invoke(channel: grpc.aio.Channel, method: Method, request: Message, headers: Headers) -> Any:
    """Calls a method. Returns its response, or the first one. Raises AioRpcError if it fails.

    A single request is sent in the same way whether or not more could follow. If more could, grpc.aio sometimes reports
    an error of its own in place of the server's, because that ends the call while the request is being written.
    """
    is_streaming = method.is_streaming
    prepare: Any = channel.unary_stream if is_streaming else channel.unary_unary
    call = prepare(
        method.path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.descriptor.output_type).FromString,
    )(request, metadata=headers, timeout=TIMEOUT)
    if not is_streaming:
        return await call
    async for response in call:
        call.cancel()
        return response
    return None


def _grpc_answer(error: grpc.aio.AioRpcError) -> Answer:
    status: status_pb2.Status | None = None
    challenge = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(bytes(value))  # type: ignore[arg-type]  # keys of this form have bytes
        elif key == "www-authenticate":
            challenge = str(value)
    text = f"{error.details()} {error.trailing_metadata()} {error.initial_metadata()} {status}"
    if status is None:
        return Answer(error.code().name, challenge=challenge, text=text)
    reason, problem = _reason_in(status)
    if (status.code, status.message) != (error.code().value[0], error.details()):
        problem = "grpc-status-details-bin says something else than grpc-status and grpc-message"
    return Answer(error.code().name, reason, challenge, text=text, problem=problem)


def _reason_in(status: status_pb2.Status) -> tuple[str, str]:
    info = error_details_pb2.ErrorInfo()
    found = [each for each in status.details if each.Unpack(info)]
    if len(found) != 1:
        return "", f"there are {len(found)} ErrorInfo"
    return info.reason, "" if info.domain == "shop" else f"the domain of the ErrorInfo is {info.domain}"


def _http_answer(answer: httpx.Response, body: bytes) -> Answer:
    """Reads an error as JSON."""
    challenge = answer.headers.get("www-authenticate", "")
    text = f"{answer.headers.multi_items()} {body.decode(errors='replace')}"
    try:
        status = json.loads(body)
        code = _NAMES[status["code"]]
        infos = [each for each in status["details"] if each["@type"].endswith("google.rpc.ErrorInfo")]
    except (ValueError, LookupError, TypeError):
        return Answer("?", "", challenge, answer.status_code, text, "the error is not a google.rpc.Status")
    problem = "" if set(status) == {"code", "message", "details"} and status["message"] else f"its fields are {status}"
    if not answer.headers["content-type"].startswith("application/json"):
        problem = f"its type is {answer.headers['content-type']}"
    if any(each["domain"] != "shop" for each in infos):
        problem = f"the domain of an ErrorInfo is wrong: {infos}"
    reason = infos[0]["reason"] if len(infos) == 1 else ""
    return Answer(code, reason, challenge, answer.status_code, text, problem)


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Web:
    """gRPC-Web through the edge, as browsers use it."""

    name = "gRPC-Web"
    is_edge = True

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    def serves(self, method: Method) -> bool:
        return True

    async def call(self, method: Method, request: Message, headers: Headers) -> Answer:
        body = request.SerializeToString()
        own = (("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1"))
        async with self._http.stream(
            "POST", method.path, content=b"\0" + len(body).to_bytes(4, "big") + body, headers=[*own, *headers]
        ) as answer:
            if not answer.headers["content-type"].startswith("application/grpc-web"):
                return _http_answer(answer, await answer.aread())
            found: Mapping[str, str] = answer.headers
            received = b""
            async for data in answer.aiter_raw():
                received += data
                if received[0] == 0 and len(received) >= 5 + int.from_bytes(received[1:5], "big"):
                    return Answer("OK", http=answer.status_code)
            if received:
                lines = received[5:].decode().split("\r\n")
                found = {
                    name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
                }
        if "grpc-status" not in found:  # a path that the edge does not know
            return Answer("UNIMPLEMENTED" if answer.status_code == 404 else "?", http=answer.status_code)
        name = _NAMES[int(found["grpc-status"])]
        details = found.get("grpc-status-details-bin", "")
        status = status_pb2.Status.FromString(_unpadded(details))
        text = f"{answer.headers.multi_items()} {received!r}".replace(details or " ", f"{status} ")
        reason, problem = _reason_in(status) if status.code else ("", "")
        return Answer(name, reason, found.get("www-authenticate", ""), answer.status_code, text, problem)


def _unpadded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))


class RestDoor:
    """REST through the edge."""

    name = "REST"
    is_edge = True

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    def serves(self, method: Method) -> bool:
        return bool(_http_rule(method).WhichOneof("pattern"))

    async def call(self, method: Method, request: Message, headers: Headers) -> Answer:
        verb, path, query, body = transcoded(method, request)
        answer = await self._http.request(verb, path, params=query, json=body, headers=list(headers), timeout=TIMEOUT)
        if answer.status_code == 200:
            return Answer("OK", http=200)
        return _http_answer(answer, answer.content)


def _http_rule(method: Method) -> Any:
    options: Any = method.descriptor.GetOptions().Extensions  # google.api has no types
    return options[annotations_pb2.http]


def transcoded(method: Method, request: Message) -> tuple[str, str, dict[str, Any], Any]:
    """Returns the HTTP method, path, query and JSON body of a request, by the annotation of its method."""
    rule = _http_rule(method)
    verb: str = rule.WhichOneof("pattern")
    fields = MessageToDict(request)

    def take(match: re.Match[str]) -> str:
        *parents, last = match[1].split(".")
        found: Any = fields
        for parent in parents:
            found = found[parent]
        return quote(str(found.pop(last)), safe="")

    path = re.sub(r"\{([^}]+)\}", take, getattr(rule, verb))
    if rule.body == "*":
        return verb.upper(), path, {}, fields
    body = fields.pop(rule.body) if rule.body else None
    return verb.upper(), path, fields, body


class Events:
    """The event stream of the sidecar, through the edge."""

    def __init__(self, name: str, http: httpx.AsyncClient, path: str, accept: str = "*/*") -> None:
        """`path` has `{id}` where the order's id is."""
        self.name = name
        self.is_edge = True
        self._http = http
        self._path = path
        self._accept = accept

    def serves(self, method: Method) -> bool:
        return method.full_name == STREAM

    async def call(self, method: Method, request: Message, headers: Headers) -> Answer:
        path = self._path.replace("{id}", request.order_id)  # type: ignore[attr-defined]  # a StreamOrderStatusRequest
        for key, value in headers:
            if key == TICKET_PARAMETER:
                path += f"{'&' if '?' in path else '?'}ticket={quote(value, safe='')}"
        sent = [("accept", self._accept), *(each for each in headers if each[0] != TICKET_PARAMETER)]
        async with self._http.stream("GET", path, headers=sent) as answer:
            if answer.status_code != 200:
                return _http_answer(answer, await answer.aread())
            received = b""
            async for data in answer.aiter_raw():
                received += data
                if b"\n\n" in received:
                    break
        if not answer.headers["content-type"].startswith("text/event-stream"):
            return Answer("?", http=200, text=received.decode(), problem="no event stream")
        if not received.startswith(b"id: 1\ndata: {"):
            return Answer("?", http=200, text=received.decode(), problem="the stream begins with something else")
        return Answer("OK", http=200)


TICKET_PARAMETER = "?ticket"
"""Stands among the headers for the query parameter of a stream."""
