"""Show a page in the browser: ask a model about a picture, see the explanation, remove patches and words.

``python scripts/demo.py`` prints the address of the page.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "demo")

if __name__ == "__main__":
    main()
