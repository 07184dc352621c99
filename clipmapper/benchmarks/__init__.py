"""What scripts/benchmark.py measures: ratios of times taken side by side in one process."""
