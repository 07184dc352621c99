"""Test explanations by removing tokens: ``python scripts/perturb.py task=vqa mapper=b explainer=weighted``.

``task=caption`` tests captions: images are captioned again without some patches, and the new captions are scored
against the full image. ``explainer=all`` (or ``paper``) compares several explainers in one pass. ``resume=RUN_FOLDER``
continues a stopped run.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "perturb")

if __name__ == "__main__":
    main()
