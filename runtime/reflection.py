"""gRPC reflection in both of its versions: v1, which clients use now, and v1alpha, which they used before.

The servicer of grpcio-reflection has no v1, and finds no methods by name. Both versions differ only in the name of
their package, so one servicer serves both, with the messages of grpcio-reflection's v1alpha.
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

from runtime.guard import Guarded

V1ALPHA = DESCRIPTOR.services_by_name["ServerReflection"].full_name
V1 = V1ALPHA.replace("v1alpha", "v1")

MAX_ECHOED_LENGTH = 200
"""How many characters of the requested name an error repeats."""


def add_to_server(guarded: Guarded, names: Iterable[str], pool: DescriptorPool | None = None) -> None:
    """Adds both versions of reflection to a server.

    Args:
        guarded: Stands in for the server.
        names: The full names of the other services that it lists.
        pool: What it describes; by default all that the process knows.
    """
    pool = Default() if pool is None else pool
    for file in (_v1alpha(), _v1()):
        pool.Add(file)
    servicer = Reflection((*names, V1, V1ALPHA), pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.info, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
    )
    for version in (V1, V1ALPHA):
        guarded.add_registered_method_handlers(version, {"ServerReflectionInfo": method})


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
    """A servicer that describes the contents of a descriptor pool."""

    def __init__(self, names: Iterable[str], pool: DescriptorPool) -> None:
        self._names = sorted(names)
        self._pool = pool
        self._closure = cache(_closure)

    async def info(
        self, requests: AsyncIterator[ServerReflectionRequest], context: object
    ) -> AsyncIterator[ServerReflectionResponse]:
        """Yields a response for each request. If something is not found, its response says so; the stream goes on."""
        async for request in requests:
            yield self._respond(request)

    def _respond(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        kind = request.WhichOneof("message_request")
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            match kind:
                case "file_by_filename":
                    self._describe(response, self._pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    self._describe(response, self._file_of(request.file_containing_symbol))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    extended = self._pool.FindMessageTypeByName(wanted.containing_type)
                    extension = self._pool.FindExtensionByNumber(extended, wanted.extension_number)
                    self._describe(response, self._pool.FindFileContainingSymbol(extension.full_name))
                case "all_extension_numbers_of_type":
                    extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    numbers = sorted(each.number for each in self._pool.FindAllExtensions(extended))
                    response.all_extension_numbers_response.CopyFrom(
                        ExtensionNumberResponse(base_type_name=extended.full_name, extension_number=numbers)
                    )
                case "list_services":
                    services = [ServiceResponse(name=name) for name in self._names]
                    response.list_services_response.CopyFrom(ListServiceResponse(service=services))
                case _:
                    _fail(response, grpc.StatusCode.INVALID_ARGUMENT, "the request has no query")
        except KeyError:
            wanted_text = str(getattr(request, kind or "")).strip()[:MAX_ECHOED_LENGTH]
            _fail(response, grpc.StatusCode.NOT_FOUND, f"{wanted_text} not found")
        return response

    def _describe(self, response: ServerReflectionResponse, file: FileDescriptor) -> None:
        response.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=self._closure(file)))

    def _file_of(self, symbol: str) -> FileDescriptor:
        """Returns the file of a symbol. The pool itself finds no methods, and no enum values below the enum's name."""
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
    """Returns a file and all that it imports, serialized, each once, the file first."""
    found: dict[str, Any] = {}

    def add(each: FileDescriptor) -> None:
        if each.name not in found:
            found[each.name] = each.serialized_pb
            for dependency in each.dependencies:
                add(dependency)

    add(file)
    return list(found.values())


def _fail(response: ServerReflectionResponse, code: grpc.StatusCode, text: str) -> None:
    response.error_response.CopyFrom(ErrorResponse(error_code=code.value[0], error_message=text))
