"""The samples of a test: pairs of an image and a text, with the answers of people if there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from clipmapper.any_model.samples import Sample, readable
from clipmapper.data.images import BadImage, load_rgb
from clipmapper.errors import UserError
from clipmapper.metrics.vqa import normalize_answer, vqa_accuracy
from clipmapper.text import check_text
from explain.sample.image import opened

ANNOTATORS = 10  # the official VQA accuracy is defined for this number of answers


@dataclass(frozen=True, eq=False)
class Pair:
    """One sample: an image, a text, or both."""

    id: int
    image: Image.Image | None
    text: str | None
    answers: Sequence[str] | None = None  #: answers of people; None if they are not known

    def accuracy(self, answer: str) -> float:
        """Return the accuracy of an answer, 0..1.

        With ten or more answers it is the official VQA accuracy. With fewer it is 1 if the answer is one of them, after
        the official normalisation.
        """
        answers = self.answers or ()
        if len(answers) >= ANNOTATORS:
            return vqa_accuracy(answer, [{"answer": each, "answer_id": k} for k, each in enumerate(answers)])
        return float(normalize_answer(answer) in {normalize_answer(each) for each in answers})


def pairs_of(samples: Iterable[Sequence[Any]]) -> list[Pair]:
    """Return the samples that a user gave as tuples (image, text) or (image, text, answers).

    An image is a file, a PIL image or None; answers are a string, strings or None.

    Raises:
        UserError: There is no sample, or one has another form.
    """
    pairs = [_pair(number, sample) for number, sample in enumerate(samples)]
    if not pairs:
        raise UserError("samples: there is none; give a list of (image, text) or (image, text, answers)")
    check_parts(pairs)
    return pairs


def check_parts(samples: Sequence[Pair | Sample]) -> None:
    """Raise UserError if some samples have an image or a text and others do not."""
    for name in ("image", "text"):
        without = [sample.id for sample in samples if getattr(sample, name) is None]
        if 0 < len(without) < len(samples):
            raise UserError(
                f"sample {without[0]} has no {name}, but others have one: give it to all samples or to none"
            )


def read_pairs(samples: Iterable[Sample], on_bad_image: str) -> Iterator[Pair]:
    """Yield the samples of a dataset as pairs; the arguments and errors are those of ``readable``."""
    for sample, image in readable(samples, on_bad_image):
        yield Pair(sample.id, image, sample.text, sample.answers)


def first_pair(samples: Iterable[Sample], on_bad_image: str) -> Pair:
    """Return the first sample whose image can be read as a pair; the arguments are those of ``readable``.

    Raises:
        UserError: The first image cannot be read, or no image can if ``on_bad_image`` is ``skip``.
    """
    for sample in samples:
        try:
            image = None if sample.image is None else load_rgb(sample.image)
            return Pair(sample.id, image, sample.text, sample.answers)
        except BadImage:  # it is named when the batch of the sample is read
            if on_bad_image == "fail":
                raise
    raise UserError("none of the chosen images could be read; check the data")


def _pair(number: int, sample: Sequence[Any]) -> Pair:
    if not isinstance(sample, Sequence) or isinstance(sample, str) or len(sample) not in (2, 3):
        raise UserError(f"sample {number} is no tuple (image, text) or (image, text, answers)")
    image, text, answers = (*sample, None)[:3]
    if image is None and text is None:
        raise UserError(f"sample {number} has neither an image nor a text")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise UserError(f"sample {number}: its text is {text!r}; give a text, or None")
    if text is not None:
        check_text(text, f"sample {number}: its text", "correct it")
    if isinstance(answers, str):
        answers = [answers]
    if answers is not None and (not answers or isinstance(answers, Mapping) or not all(map(_is_text, answers))):
        raise UserError(f"sample {number}: its answers are {answers!r}; give texts, or None")
    for answer in answers or ():
        check_text(answer, f"sample {number}: an answer", "correct it")
    try:
        return Pair(number, None if image is None else opened(image), text, answers)
    except ValueError as error:
        raise UserError(f"sample {number}: {error}") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str)
