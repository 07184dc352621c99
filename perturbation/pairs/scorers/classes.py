"""Models whose logits are those of classes: ViLT, image and text classifiers, and CLIPmapper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face.families import plan_of
from explain.sample.hugging_face import MATCHING, class_labels, class_probabilities
from explain.sample.inputs import processed
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import Images, Scored, Texts, tokens_of


@dataclass(frozen=True, eq=False)
class ClassScorer:
    """A model with a logit for each class; its value is the probability of the class that it predicts for the pair."""

    logits: Callable[[Images, Texts], Tensor]  #: returns [n, C]
    probabilities: Callable[[Tensor], Tensor]  #: of the classes, [n, C] → [n, C]
    labels: Sequence[str]
    tokens: Mapping[str, str] = field(default_factory=dict)
    value: str = "probability"
    answers: bool = True
    drops: bool = False

    @torch.inference_mode()
    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return the class that the model predicts for each pair."""
        found: list[Any] = self.logits([p.image for p in pairs], [p.text for p in pairs]).argmax(-1).tolist()
        return found

    def text(self, asked: Any) -> str:
        """Return the label of a class."""
        return self.labels[asked]

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Keep nothing: images and texts are read together."""

    @torch.inference_mode()
    def score(self, images: Images, texts: Texts, asked: Sequence[Any], say: bool) -> Scored:
        """Return the labels of n pairs, and the probabilities of the classes asked about."""
        shares = self.probabilities(self.logits(images, texts)).double().cpu()
        value = shares[torch.arange(len(asked)), torch.tensor(asked)].numpy()
        return Scored([self.labels[k] for k in shares.argmax(-1).tolist()], value)


def hugging_face_classes(model: Any, processor: Any) -> ClassScorer:
    """Return the scorer of a classifier of ``transformers``."""

    def logits(images: Images, texts: Texts) -> Tensor:
        shown = [image for image in images if image is not None]
        written = [text for text in texts if text is not None]
        inputs = processed(model, processor, shown, written or None, **({"padding": True} if written else {}))
        if model.config.model_type in MATCHING:
            return plan_of(model, inputs, None, None).run()
        found: Tensor = model(**inputs).logits
        return found

    labels = class_labels(model)
    tokenizer = getattr(processor, "tokenizer", processor)
    return ClassScorer(logits, lambda found: class_probabilities(model, found), labels, tokens_of(tokenizer))


def clipmapper_classes(model: Any) -> ClassScorer:
    """Return the scorer of a ``CLIPMapperVQA``, whose classes are answers."""

    def logits(images: Images, texts: Texts) -> Tensor:
        weight = next(model.parameters())
        pixels = model.encoder.pixels(list(images)).to(weight.device, weight.dtype)
        questions = model.encoder.tokenize([text or "" for text in texts])
        found: Tensor = model(pixels, questions.to(weight.device))
        return found

    return ClassScorer(logits, lambda found: found.float().sigmoid(), model.answers)
