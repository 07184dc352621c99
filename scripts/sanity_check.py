"""Test whether explanations change when layers are randomised: ``python scripts/sanity_check.py mapper=b``."""

from perturbation.commands.sanity_check import main

if __name__ == "__main__":
    main()
