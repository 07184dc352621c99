"""Get what a run needs from elsewhere: ``python scripts/fetch.py experiment=paper_vqa``. Then it needs no network."""

from functools import partial

from perturbation.cli import run

main = partial(run, "fetch")

if __name__ == "__main__":
    main()
