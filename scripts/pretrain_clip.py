"""Pre-trains the embedded encoder on ``shapes`` scenes and reports what its tokens know.

``python scripts/pretrain_clip.py output=clipmapper/encoder/embedded`` makes the weights that ship with the project.
"""

from clipmapper.commands.pretrain_clip import main

if __name__ == "__main__":
    main()
