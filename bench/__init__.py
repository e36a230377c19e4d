"""Benchmarks of the shop as it runs, on one machine."""

import os

# The processes that a benchmark starts use nothing of its gRPC: its word on each fork would be noise.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
