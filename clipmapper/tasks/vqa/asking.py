"""One question about one image: what CLIPmapper tells ``explain.explain``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from PIL import Image

from clipmapper.encoder.load import TextBatch
from clipmapper.explaining.familiarity import examine
from clipmapper.explaining.output import seen_box
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Needs
from explain.sample.traced import Answer, Goal, TracedSample, View, class_of
from explain.targets import given, margin, predicted

if TYPE_CHECKING:
    from clipmapper.tasks.vqa.model import CLIPMapperVQA


def trace_question(model: CLIPMapperVQA, image: Image.Image, question: str, target: Goal, needs: Needs) -> TracedSample:
    """Trace the answer to a question; a question or an image unlike those of the training gives a warning.

    Raises:
        ValueError: The target is not one of the model's answers.
        TraceError: A tensor contains NaN or Inf.
    """
    goals = target if isinstance(target, tuple) else () if target is None else (target,)
    classes = [class_of(model.answers, goal) for goal in goals]
    y = predicted if not classes else given(classes[0]) if len(classes) == 1 else margin(*classes)
    weight = next(model.trained.parameters())
    text = model.encoder.tokenize([question])
    text = TextBatch(text.ids.to(weight.device), text.valid.to(weight.device), text.truncated)
    pixels = model.encoder.pixels([image]).to(weight.device, weight.dtype)
    for line in examine(model, pixels, [question])[0].warnings:
        warnings.warn(line, stacklevel=2)
    traced = trace_vqa(model, pixels, text, y, needs, [0], [0])
    shares = traced.logits[0].float().sigmoid()
    own, *named = (Answer(model.answers[k], float(shares[k])) for k in [int(traced.answers[0]), *classes])
    return TracedSample(
        traced=traced,
        photos=[image],
        seen=[seen_box(image.size, model.encoder.vision.visual.preprocess_cfg)],
        views=[View(0)],
        words=[] if traced.words is None else traced.words[0],
        question=question,
        answer=own,
        explained=named[0] if named else own,
        over=named[1] if len(named) > 1 else None,
    )
