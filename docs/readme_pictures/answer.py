"""answer.png: what the code in README.md draws that asks a shipped model a question. The code itself is run."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from readme_pictures.hero import map_scores

PROJECT = Path(__file__).resolve().parents[2]
SCENE = "docs/pictures/scene.png"  # the image that the code opens
MADE = "answer.png"  # the file that it writes


def readme_code() -> str:
    """Return the first block of Python in README.md that calls ``explain_question``."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "README.md").read_text("utf-8"), re.M | re.S)
    return next(block for block in blocks if "explain_question(" in block)


def run(code: str, scene: Path) -> tuple[Image.Image, Any]:
    """Run the code in an empty folder with an image.

    Args:
        code: The code, which defines ``sample`` and writes ``MADE``.
        scene: The image.

    Returns:
        The picture that the code wrote, and its scores.
    """
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(SCENE).parent.mkdir(parents=True)
        Path(SCENE).write_bytes(scene.read_bytes())
        exec(compile(code, "README.md", "exec"), names)
        picture = Image.open(MADE).convert("RGB")
    sample = names["sample"]
    shown = {"question": sample.question, "answer": sample.answer, "probability": sample.probability}
    return picture, shown | {"maps": map_scores(sample)}
