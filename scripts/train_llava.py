"""Train the small LLaVA on conversations about ``shapes`` scenes, and evaluate what it generates.

``python scripts/train_llava.py output=clipmapper/pretrained/shapes-llava`` trains the model that is part of the
project.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "train_llava")

if __name__ == "__main__":
    main()
