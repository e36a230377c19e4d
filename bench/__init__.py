"""Benchmarks of the shop as it runs, on one machine."""
