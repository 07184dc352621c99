"""The trained models that the package contains.

These are the mappers ``{task}-{mapper}.safetensors``, made with ``experiment=shipped``, and the folder of the small
LLaVA, made with ``scripts/train_llava.py``.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
LLAVA = FOLDER / "shapes-llava"


def pretrained_file(task: str, mapper: str) -> Path | None:
    """Return the weights file of a task's mapper, or None if the package has no such model."""
    path = FOLDER / f"{task}-{mapper}.safetensors"
    return path if path.is_file() else None
