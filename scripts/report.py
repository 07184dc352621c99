"""Write one HTML page from any finished runs: ``python scripts/report.py runs=[FOLDER,FOLDER]``.

Without ``runs`` it shows the newest run of every command.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "report")

if __name__ == "__main__":
    main()
