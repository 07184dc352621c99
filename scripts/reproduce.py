"""Run all stages of an experiment, from the models to the report: ``python scripts/reproduce.py``."""

from functools import partial

from perturbation.cli import run

main = partial(run, "reproduce")

if __name__ == "__main__":
    main()
