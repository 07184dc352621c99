"""Run all stages of an experiment, from the models to the report: ``python scripts/reproduce.py``."""

from perturbation.commands.reproduce import main

if __name__ == "__main__":
    main()
