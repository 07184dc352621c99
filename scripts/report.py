"""Write one HTML page from any finished runs: ``python scripts/report.py runs=[FOLDER,FOLDER]``.

Without ``runs`` it shows the newest run of every command.
"""

from perturbation.commands.report import main

if __name__ == "__main__":
    main()
