"""Tests explanations by removing tokens: ``python scripts/perturb.py task=vqa mapper=b explainer=weighted``.

``task=caption`` tests captions, by how well what is generated again fits the whole picture.
``explainer=all`` (or ``paper``) compares several in one pass; ``resume=RUN_FOLDER`` takes over what a stopped run did.
"""

from perturbation.commands.perturb import main

if __name__ == "__main__":
    main()
