"""Scores a trained model, or anyone's result file, by the official metrics of its task.

``python scripts/evaluate.py task=vqa mapper=b`` takes the newest fitting checkpoint, as does ``task=caption``;
``python scripts/evaluate.py predictions=FILE questions=FILE annotations=FILE`` needs no model, nor does
``python scripts/evaluate.py task=caption predictions=FILE references=FILE``.
"""

from clipmapper.commands.evaluate import main

if __name__ == "__main__":
    main()
