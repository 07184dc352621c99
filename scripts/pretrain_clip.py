"""Pre-train the embedded encoder on ``shapes`` scenes, and report what can be read from its tokens.

``python scripts/pretrain_clip.py output=clipmapper/encoder/embedded`` trains the weights that are part of the project.
"""

from functools import partial

from perturbation.cli import run

main = partial(run, "pretrain_clip")

if __name__ == "__main__":
    main()
