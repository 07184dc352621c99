"""Write the frozen encoder as a CLIP model of Hugging Face: ``python scripts/export.py output=FOLDER``."""

from functools import partial

from perturbation.cli import run

main = partial(run, "export")

if __name__ == "__main__":
    main()
