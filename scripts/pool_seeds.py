"""Join perturbation runs of several training seeds: ``python scripts/pool_seeds.py runs=[FOLDER,FOLDER,FOLDER]``."""

from functools import partial

from perturbation.cli import run

main = partial(run, "pool_seeds")

if __name__ == "__main__":
    main()
