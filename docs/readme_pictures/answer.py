"""answer.png and explained.png: what code in README.md draws. The code itself is run."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import write_hugging_face
from clipmapper.encoder.load import load_encoder
from readme_pictures.hero import map_scores

PROJECT = Path(__file__).resolve().parents[2]
SCENE = "docs/pictures/scene.png"  # the image that the code opens
FOLDER = "models/shapes-tiny"  # the folder of ``export`` that the code may load
CALLS = {"answer": "model.explain(", "explained": "explain.explain("}  #: what the code of each picture calls


def readme_code(name: str) -> str:
    """Return the first block of Python in README.md that draws a picture."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "README.md").read_text("utf-8"), re.M | re.S)
    return next(block for block in blocks if CALLS[name] in block)


def run(name: str, code: str, scene: Path) -> tuple[Image.Image, Any]:
    """Run the code of a picture in a folder that has only an image and, if the code loads it, a model.

    Args:
        name: The picture; the code writes ``NAME.png``.
        code: The code, which defines the explanation ``e``.
        scene: The image.

    Returns:
        The picture that the code wrote, and its scores.
    """
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(SCENE).parent.mkdir(parents=True)
        Path(SCENE).write_bytes(scene.read_bytes())
        if FOLDER in code:
            write_hugging_face(load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 1)), Path(FOLDER))
        exec(compile(code, "README.md", "exec"), names)
        picture = Image.open(f"{name}.png").convert("RGB")
    sample = names["e"].figure_content()
    shown = {"question": sample.question, "answer": sample.answer, "probability": sample.probability}
    return picture, shown | {"maps": map_scores(sample)}
