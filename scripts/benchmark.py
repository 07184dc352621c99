"""Measure speed and memory, as ratios in one process.

Example: ``python scripts/benchmark.py what=[explaining] sizes=[tiny]``.
"""

from perturbation.commands.benchmark import main

if __name__ == "__main__":
    main()
