"""What the demo's calls to the services have in common."""

import grpc

CALL_TIMEOUT = 5.0
"""Seconds that one call may take."""

RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The codes after which the same call may succeed later."""

CONFLICTS = {grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}
"""The codes that a call gets when another caller has changed the resource first."""
