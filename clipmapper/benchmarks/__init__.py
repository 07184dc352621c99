"""Benchmarks of scripts/benchmark.py: ratios of times that are measured alternately in one process."""
