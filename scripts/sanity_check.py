"""Test whether explanations change when layers are randomised: ``python scripts/sanity_check.py mapper=b``."""

from functools import partial

from perturbation.cli import run

main = partial(run, "sanity_check")

if __name__ == "__main__":
    main()
