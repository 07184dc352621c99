"""Draw explanations as figures, and write their scores.

``python scripts/explain.py task=vqa mapper=b explainer=weighted`` uses the newest fitting checkpoint and questions of
the test split. ``python scripts/explain.py image=PHOTO question="what is it?"`` needs no dataset. With ``task=caption``
images are captioned and every word is explained; give ``image=PHOTO`` without a question then.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "explain")

if __name__ == "__main__":
    main()
