"""List, verify or prune the feature cache: ``python scripts/cache.py do=verify``."""

from functools import partial

from perturbation.cli import run

main = partial(run, "cache")

if __name__ == "__main__":
    main()
