"""Benchmarks of the perturbation tests: their speed and memory."""
