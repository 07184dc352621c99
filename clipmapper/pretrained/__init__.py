"""The trained mappers that the package contains, ``{task}-{mapper}.safetensors``, made with ``experiment=shipped``."""

from pathlib import Path

FOLDER = Path(__file__).parent


def pretrained_file(task: str, mapper: str) -> Path | None:
    """Return the weights file of a task's mapper, or None if the package has no such model."""
    path = FOLDER / f"{task}-{mapper}.safetensors"
    return path if path.is_file() else None
