"""Measure speed and memory, as ratios in one process.

Example: ``python scripts/benchmark.py what=[explaining] sizes=[tiny]``.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "benchmark")

if __name__ == "__main__":
    main()
