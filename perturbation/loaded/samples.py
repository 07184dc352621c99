"""The samples of a loaded model's tests: those of its test data, or those that a user gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from clipmapper.any_model.load import LoadedModel
from clipmapper.any_model.samples import Sample, load_samples
from clipmapper.config.schema import HuggingFaceConfig
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.datasets import load_captions_of
from clipmapper.data.images import EncodedImage, load_rgb
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.trained import TrainedCaptioner
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import TrainedVQA
from perturbation.config import PerturbBaseConfig, PerturbCaptionsConfig, PerturbConfig, PerturbModelConfig
from perturbation.measures.base import Measure
from perturbation.pairs.samples import ANNOTATORS, Pair, pairs_of
from perturbation.perturb import any_model, caption, vqa
from perturbation.perturb.candidates import Candidate
from perturbation.perturb.lightning import ExplanationTests
from perturbation.perturb.samples import split_of

if TYPE_CHECKING:
    from perturbation.loaded.model import Given, Loaded


def test_samples(model: Loaded, config: PerturbBaseConfig) -> list[Sample]:
    """Return the samples of the split that a config names.

    Raises:
        UserError: The model's test data are not known, or cannot be read.
    """
    split, data = split_of(config), config.data
    if "data" not in model.config:
        raise UserError(f"{model.name} has no test data: give samples, a list of (image, text, answers)")
    if isinstance(model.model, CLIPMapperCaption):
        return [Sample(each.image_id, each.image, None, each.captions) for each in load_captions_of(data, split).images]
    return load_samples(data, split, dual=model.task == "similarity")


def given_samples(model: Loaded, samples: Iterable[Sequence[Any]]) -> list[Sample]:
    """Return samples that a user gives as tuples (image, text, answers), or the first two.

    Raises:
        UserError: A tuple does not fit the model.
    """
    pairs = pairs_of(samples)
    if model.processor is None:
        wrong = [pair for pair in pairs if pair.image is None or not pair.answers]
        wrong += [pair for pair in pairs if (pair.text is None) != (model.task == "caption")]
        if wrong:
            form = "(image, None, captions)" if model.task == "caption" else "(image, question, answers)"
            raise UserError(f"sample {wrong[0].id} does not fit {model.name}: give {form}")
    return [_sample(pair, model.task) for pair in pairs]


def _sample(pair: Pair, task: str) -> Sample:
    name = f"the image of sample {pair.id}"
    image = None if pair.image is None else EncodedImage(name, partial(_png, pair.image))
    answers = None if pair.answers is None else tuple(pair.answers)
    if task == "vqa" and answers is not None and len(answers) < ANNOTATORS:
        answers *= ANNOTATORS  # the official accuracy of each of them is then 1, as in ``Pair.accuracy``
    return Sample(pair.id, image, pair.text, answers, image_id=pair.id)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "png")
    return file.getvalue()


def as_given(sample: Sample) -> Given:
    """Return a sample in the form in which users give samples."""
    image = None if sample.image is None else load_rgb(sample.image)
    return image, sample.text, None if sample.answers is None else list(sample.answers)


def tests_of(
    model: Loaded,
    samples: Sequence[Sample],
    config: PerturbBaseConfig,
    candidates: Sequence[Candidate],
    measures: Mapping[str, Measure],
) -> ExplanationTests[Any]:
    """Return the perturbation tests of a model's explanations of samples; the errors are those of ``perturb``."""
    path, on_bad_image = Path(model.path), config.data.on_bad_image
    if isinstance(model.model, CLIPMapperVQA):
        assert isinstance(config, PerturbConfig)
        images = {each.image_id: each.image for each in samples if each.image is not None}
        trained = TrainedVQA(model.model, tuple(map(_question, samples)), images, path, on_bad_image)
        return vqa.tests_of(trained, config, candidates, measures)
    if isinstance(model.model, CLIPMapperCaption):
        assert isinstance(config, PerturbCaptionsConfig)
        captioned = tuple(
            CaptionImage(each.id, each.answers or (), each.image) for each in samples if each.image is not None
        )
        captioner = TrainedCaptioner(model.model, captioned, path, config.task.max_length, on_bad_image)  # type: ignore[attr-defined]
        return caption.tests_of(captioner, config, candidates, measures)
    assert isinstance(config, PerturbModelConfig)
    assert isinstance(config.model, HuggingFaceConfig)
    read = config.model.layers, config.model.max_new_tokens
    loaded = LoadedModel(model.model, model.processor, model.name, model.task == "similarity", *read)
    return any_model.tests_of(loaded, samples, config, candidates, measures)


def _question(sample: Sample) -> Question:
    answers = tuple({"answer": each, "answer_id": k} for k, each in enumerate(sample.answers or (), 1))
    return Question(sample.id, sample.image_id, str(sample.text), answers, question_type=sample.kind)
