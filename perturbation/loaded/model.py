"""A loaded model: what is known about it, its explanations, and their tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from explain.sample.chosen import Choice
from explain.sample.entry import explain
from explain.sample.image import Picture
from explain.sample.result import Explained
from explain.sample.traced import Goal
from perturbation.pairs.result import Tested

Given = tuple[Image.Image | None, str | None, list[str] | None]  #: an image, a text, and answers or captions by people


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Loaded:
    """A model that :func:`clipmapper.load` returns."""

    name: str  #: what was loaded: a name, or a path
    task: str  #: ``vqa`` or ``caption``; of other models ``similarity``, ``classification`` or ``generation``
    model: nn.Module  #: in evaluation mode
    processor: Any  #: of a model of ``transformers``; else None
    classes: tuple[str, ...]  #: answers, labels or sub-words that it chooses from; empty if it has no list of its own
    config: Mapping[str, Any]  #: of the training run, or the part that the checkpoint describes; or of ``transformers``
    metrics: Mapping[str, Any]  #: scores by split, as in ``metrics.json``; empty if they are not known
    path: str  #: the checkpoint, the folder of the model, or its name on the Hugging Face hub

    def __repr__(self) -> str:
        about = [self.task]
        if self.classes:
            about.append(f"{len(self.classes)} classes")
        if self.accuracy is not None:
            about.append(f"accuracy {self.accuracy:.1f} %")
        return f"Loaded({self.name!r}: {', '.join(about)})"

    @property
    def accuracy(self) -> float | None:
        """Percent of the test answers that are right, or of validation if the data have no test split.

        It is the official VQA accuracy; of a captioning model, the share of captions that are true of their scene. None
        if it was not measured, or if the data cannot tell whether a caption is true.
        """
        scores: Mapping[str, Any] = self.metrics.get("test") or self.metrics.get("val") or {}
        accuracy, true = scores.get("accuracy"), scores.get("true_captions")
        if accuracy is None and true is not None:
            return 100 * float(true)
        return None if accuracy is None else float(accuracy)

    def explain(
        self,
        image: Picture | Sequence[Picture] | None = None,
        text: str | None = None,
        *,
        explainer: Choice = "weighted",
        target: Goal = None,
        **options: Any,
    ) -> Explained:
        """Explain the answer to a text about an image; the arguments and errors are those of :func:`explain.explain`.

        Args:
            image: A file or a PIL image; several for a model that takes several; None for a model of texts.
            text: The question, or the text to compare; None for a captioning model.
            explainer: Name of an explainer in ``configs/explainer``, or an :class:`~explain.Explainer`; or several.
            target: What to explain instead of the model's own answer; of a caption, one of its words.
            options: ``context``, ``layers`` and ``max_new_tokens`` of :func:`explain.explain`.

        Returns:
            The explanation, which a notebook shows.
        """
        return explain(self.model, self.processor, image, text, explainer=explainer, target=target, **options)

    def samples(self, count: int | None = 4, *, seed: int = 0, **options: Any) -> list[Given]:
        """Draw samples from the test data: those that :meth:`test` draws for the same count and seed.

        Args:
            count: Number of samples; None for all.
            seed: Seed of the draw.
            options: As in :meth:`test`, such as ``split="val"``.

        Returns:
            For each sample the image, the text (None for a captioning model), and people's answers or captions.

        Raises:
            UserError: The model has no test data, or they are fewer or cannot be read.
        """
        from perturbation.loaded.testing import drawn

        return drawn(self, {"samples": count, "seed": seed, **options})

    def test(
        self,
        samples: int | Iterable[Sequence[Any]] | None = 100,
        *,
        explainers: Any = ("weighted", "genatt"),
        measures: Sequence[str] = ("areas",),
        controls: Sequence[str] = ("random",),
        **options: Any,
    ) -> Tested:
        """Test explanations by removing patches and words, as ``scripts/perturb.py`` does, with the same numbers.

        Args:
            samples: Number of samples drawn from the test data, None for all; or your own samples, tuples (image, text,
                answers of people), of a captioning model (image, None, captions by people). A model of ``transformers``
                also takes (image, text).
            explainers: Names in ``configs/explainer``, or :class:`~explain.Explainer` objects; or a mapping from names
                to these.
            measures: Names in ``configs/measure``.
            controls: Further rows: names in ``configs/explainer``.
            options: Keys of ``configs/perturb.yaml`` and of the files that it includes, such as ``steps="chefer"``,
                ``seed=1``, or ``removal={"image": "mean"}``.

        Returns:
            The areas under the curves with their intervals, and the curves, which a notebook shows.

        Raises:
            UserError: The model has no test data, or an option or a sample does not fit; one line names it.
        """
        from perturbation.loaded.testing import tested_model

        wanted = {"measure": {"names": list(measures)}, "controls": list(controls), **options}
        return tested_model(self, samples, explainers, wanted)
