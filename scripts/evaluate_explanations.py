"""Compare explanations with what they should show: ``python scripts/evaluate_explanations.py mapper=b``.

Explanations of answers are compared with the evidence that the answers depend on. With ``task=caption``, explanations
of a caption's words are compared with the objects that the words name.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "evaluate_explanations")

if __name__ == "__main__":
    main()
