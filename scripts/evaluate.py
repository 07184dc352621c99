"""Score a trained model, or a result file of any model, with the official metrics of its task.

``python scripts/evaluate.py task=vqa mapper=b`` uses the newest fitting checkpoint; ``task=caption`` does the same for
captions. These two need no model:
``python scripts/evaluate.py predictions=FILE questions=FILE annotations=FILE`` and
``python scripts/evaluate.py task=caption predictions=FILE references=FILE``.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "evaluate")

if __name__ == "__main__":
    main()
