"""Train a mapper on frozen CLIP features: ``python scripts/train.py task=vqa mapper=b``.

``resume=RUN_FOLDER`` continues a stopped run.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "train")

if __name__ == "__main__":
    main()
