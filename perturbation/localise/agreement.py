"""The check that all processes of a run explain the same model on the same samples, before they share work out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clipmapper.data.records import ImageSource
from clipmapper.process.together import check_agreed
from clipmapper.training.identity import digest
from perturbation.perturb.identity import digest_of_images


def check_model_and_texts(weights: Callable[[], str], kind: str, texts: Iterable[Sequence[object]]) -> None:
    """Check that all processes have read the same model and texts.

    Args:
        weights: Returns a hash of the model.
        kind: What the texts are, a plural.
        texts: Plain values of each sample.

    Raises:
        UserError: A process has read others.
    """
    check_agreed(lambda: {"weights": weights(), kind: digest(texts)})


def check_images(images: Iterable[ImageSource | None], cache: str) -> None:
    """Check that all processes read the same bytes of the images.

    Args:
        images: The images; None is no image.
        cache: The folder ``paths.cache``, which has the index of their contents.

    Raises:
        UserError: A process reads others.
    """
    check_agreed(lambda: {"images": digest_of_images((image for image in images if image is not None), Path(cache))})
