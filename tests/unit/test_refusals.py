"""Errors of a domain become google.rpc.Status."""

import grpc
import pytest
from google.rpc import error_details_pb2

from runtime.errors import MAX_VIOLATIONS, from_domain
from runtime.refusals import DomainError, ErrorKind


@pytest.mark.parametrize("kind", ErrorKind)
def test_kind_is_a_status_code(kind: ErrorKind) -> None:
    error = from_domain(DomainError(kind, "no"))
    assert (error.code, error.text, error.details) == (grpc.StatusCode[kind.name], "no", ())


def test_only_the_first_violations_are_details() -> None:
    """All of them would not fit into the trailers."""
    many = [(f"items[{n}]", "no") for n in range(2 * MAX_VIOLATIONS)]
    (details,) = from_domain(DomainError(ErrorKind.INVALID_ARGUMENT, "no", violations=many)).details
    assert isinstance(details, error_details_pb2.BadRequest)
    assert len(details.field_violations) == MAX_VIOLATIONS


def test_reason_metadata_and_violations_are_details() -> None:
    error = from_domain(
        DomainError(
            ErrorKind.NOT_FOUND,
            "product 1 not found",
            reason="PRODUCT_NOT_FOUND",
            metadata={"from": "1"},
            violations=[("items[0]", "product not found")],
        )
    )
    info, bad_request = error.details
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(bad_request, error_details_pb2.BadRequest)
    assert (error.reason, dict(info.metadata)) == ("PRODUCT_NOT_FOUND", {"from": "1"})
    assert [(each.field, each.description) for each in bad_request.field_violations] == [
        ("items[0]", "product not found")
    ]
