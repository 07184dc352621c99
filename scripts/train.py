"""Train a mapper on frozen CLIP features: ``python scripts/train.py task=vqa mapper=b``.

``resume=RUN_FOLDER`` continues a stopped run.
"""

from clipmapper.commands.train import main

if __name__ == "__main__":
    main()
