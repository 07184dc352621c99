"""Measures ratios, side by side in one process: ``python scripts/benchmark.py what=[explaining] sizes=[tiny]``."""

from perturbation.commands.benchmark import main

if __name__ == "__main__":
    main()
