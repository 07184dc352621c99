"""Join perturbation runs of several training seeds: ``python scripts/pool_seeds.py runs=[FOLDER,FOLDER,FOLDER]``."""

from perturbation.commands.pool_seeds import main

if __name__ == "__main__":
    main()
