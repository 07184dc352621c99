"""The pictures that can be asked about: scenes of a dataset with its questions, and uploaded files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from clipmapper.any_model.samples import load_samples
from clipmapper.config.data import ShapesConfig
from clipmapper.data.images import BadImage, EncodedImage, load_rgb
from clipmapper.errors import UserError
from clipmapper.files import read_bytes
from clipmapper.text import printable
from perturbation.config import DemoConfig

LONGEST = 2000  # pixels of the longer side of an uploaded picture; larger ones are reduced


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of the dataset, with the questions about it."""

    image: Image.Image
    questions: Sequence[str]


def scenes_of(config: DemoConfig) -> list[Scene]:
    """Read the first scenes of a split; of the generated dataset ``shapes``, only these are drawn.

    Raises:
        UserError: The data cannot be read, or none of its images can.
    """
    data = config.data
    if isinstance(data, ShapesConfig):
        count = config.scenes
        data = replace(data, train_scenes=count, val_scenes=count, test_scenes=count, workers=0)
    texts: dict[object, list[str]] = {}
    images = {}
    for sample in load_samples(data, config.split, dual=False):
        if sample.image is None:
            continue
        key = (sample.image_id, sample.image)
        if key not in texts and len(texts) == config.scenes:
            continue
        images[key] = sample.image
        texts.setdefault(key, []).extend([] if sample.text is None else [sample.text])
    found = []
    for key, image in images.items():
        try:
            found.append(Scene(load_rgb(image), tuple(dict.fromkeys(texts[key]))))
        except BadImage:
            if config.data.on_bad_image == "fail":
                raise
    if not found:
        raise UserError(f"data={data.name}: the {config.split} split has no image that can be read; choose other data")
    return found


def uploaded(file: Path) -> tuple[Image.Image, list[str]]:
    """Read an uploaded picture; return it with notes on what was changed.

    Raises:
        BadImage: It is no picture that can be read, or too large; the message has the file's own name.
    """
    encoded = read_bytes(file, "image")
    image = load_rgb(EncodedImage(printable(file.name), lambda: encoded))
    notes = []
    if (frames := _frames(file)) > 1:
        notes.append(f"the picture has {frames} frames, of which the first is read")
    if max(image.size) > LONGEST:
        before = image.size
        image.thumbnail((LONGEST, LONGEST))
        small = "{} × {}".format(*image.size)
        notes.append(f"the picture of {before[0]} × {before[1]} pixels was reduced to {small}")
    return image, notes


def _frames(file: Path) -> int:
    with Image.open(file) as image:
        return int(getattr(image, "n_frames", 1))
