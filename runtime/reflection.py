"""gRPC reflection in both of its versions: v1, which clients ask now, and v1alpha, which they asked before.

The two differ in nothing but the name of their package, so one servicer answers both, with grpcio-reflection's messages
of v1alpha. The servicer of that package answers no v1, and finds no methods.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from functools import cache
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import (
    DESCRIPTOR,
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from runtime.guard import guard

V1ALPHA = DESCRIPTOR.services_by_name["ServerReflection"].full_name
V1 = V1ALPHA.replace("v1alpha", "v1")

SHOWN = 200
"""Characters of what was not found that an error repeats."""


def add_to_server(server: grpc.aio.Server, names: Iterable[str], pool: DescriptorPool | None = None) -> None:
    """Has a server answer both versions, and list `names` beside them. What it describes is in `pool`, or else is all
    that the process knows."""
    pool = Default() if pool is None else pool
    for file in (_v1alpha(), _v1()):
        pool.Add(file)
    answers = Reflection((*names, V1, V1ALPHA), pool)
    method = grpc.stream_stream_rpc_method_handler(
        answers.info, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
    )
    for version in (V1, V1ALPHA):
        guarded = guard(f"/{version}/ServerReflectionInfo", method)
        handler = grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": guarded})
        server.add_generic_rpc_handlers((handler,))


def _v1alpha() -> FileDescriptorProto:
    file = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    return file


def _v1() -> FileDescriptorProto:
    text = text_format.MessageToString(_v1alpha()).replace("v1alpha", "v1")
    file = text_format.Parse(text, FileDescriptorProto())
    file.name = "grpc/reflection/v1/reflection.proto"
    return file


class Reflection:
    """Answers what a pool has."""

    def __init__(self, names: Iterable[str], pool: DescriptorPool) -> None:
        self._names = sorted(names)
        self._pool = pool
        self._closure = cache(_closure)

    async def info(
        self, requests: AsyncIterator[ServerReflectionRequest], context: object
    ) -> AsyncIterator[ServerReflectionResponse]:
        """Answers each request in turn. What is not found is an error within the answer: the stream goes on."""
        async for request in requests:
            yield self._answer(request)

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        kind = request.WhichOneof("message_request")
        answer = ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            match kind:
                case "file_by_filename":
                    self._describe(answer, self._pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    self._describe(answer, self._file_of(request.file_containing_symbol))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    extended = self._pool.FindMessageTypeByName(wanted.containing_type)
                    extension = self._pool.FindExtensionByNumber(extended, wanted.extension_number)
                    self._describe(answer, self._pool.FindFileContainingSymbol(extension.full_name))
                case "all_extension_numbers_of_type":
                    extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    numbers = sorted(each.number for each in self._pool.FindAllExtensions(extended))
                    answer.all_extension_numbers_response.CopyFrom(
                        ExtensionNumberResponse(base_type_name=extended.full_name, extension_number=numbers)
                    )
                case "list_services":
                    services = [ServiceResponse(name=name) for name in self._names]
                    answer.list_services_response.CopyFrom(ListServiceResponse(service=services))
                case None:
                    _fail(answer, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            wanted_text = str(getattr(request, kind or "")).strip()[:SHOWN]
            _fail(answer, grpc.StatusCode.NOT_FOUND, f"{wanted_text} not found")
        return answer

    def _describe(self, answer: ServerReflectionResponse, file: FileDescriptor) -> None:
        answer.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=self._closure(file)))

    def _file_of(self, symbol: str) -> FileDescriptor:
        """The file of a symbol. The pool finds neither a method nor the value of an enum by the enum's name."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            parent, _, member = symbol.rpartition(".")
            file = self._pool.FindFileContainingSymbol(parent)
            if member not in self._members_of(parent):
                raise
            return file

    def _members_of(self, parent: str) -> Iterable[str]:
        find_members: tuple[Callable[[], Iterable[str]], ...] = (
            lambda: self._pool.FindServiceByName(parent).methods_by_name,
            lambda: self._pool.FindEnumTypeByName(parent).values_by_name,
        )
        for find in find_members:
            try:
                return find()
            except KeyError:
                continue
        return ()


def _closure(file: FileDescriptor) -> list[bytes]:
    """A file and all that it imports, each once, the file first."""
    found: dict[str, Any] = {}

    def add(each: FileDescriptor) -> None:
        if each.name not in found:
            found[each.name] = each.serialized_pb
            for dependency in each.dependencies:
                add(dependency)

    add(file)
    return list(found.values())


def _fail(answer: ServerReflectionResponse, code: grpc.StatusCode, text: str) -> None:
    answer.error_response.CopyFrom(ErrorResponse(error_code=code.value[0], error_message=text))
