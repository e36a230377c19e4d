"""Benchmarks of the shop as it runs, on one machine."""

import os

# The processes that a benchmark starts do not use its gRPC. Without this, gRPC prints a line on each fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
