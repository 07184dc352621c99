"""Compares explanations with what they should show: ``python scripts/evaluate_explanations.py mapper=b``.

Explanations of answers with what the answers depend on, and with ``task=caption`` those of a caption's words with the
objects that the words name.
"""

from perturbation.commands.evaluate_explanations import main

if __name__ == "__main__":
    main()
