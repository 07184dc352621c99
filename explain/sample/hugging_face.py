"""A model of ``transformers`` on one sample: classifiers, dual encoders, and language models that read images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from explain.adapters.hugging_face import trace_hugging_face
from explain.sample.generated import trace_generated
from explain.sample.inputs import OF_IMAGES, checked_images, processed
from explain.sample.tiles import seen_box, views_of
from explain.sample.traced import Answer, Asked, TracedSample, class_of, second_class
from explain.sample.words import question_words
from explain.targets import Target, given, margin, predicted
from explain.traced import Traced

DUAL = ("clip", "chinese_clip", "siglip", "siglip2")
MATCHING = ("blip", "flava")  # whose logits are those of the two answers
CLASSIFIERS = ("vilt", "bert", *OF_IMAGES, *MATCHING)
MATCHES = ["no match", "match"]
TRACED_ONLY = ("lxmert", "visual_bert")  # they read features of regions


def trace_loaded(model: Any, processor: Any, asked: Asked) -> TracedSample:
    """Trace a model on images and a text.

    Raises:
        ValueError: The processor, the images, the text or the target do not fit.
        TraceError: The model cannot be traced.
    """
    if processor is None or not callable(processor):
        raise ValueError(
            f"processor is {processor!r}: give that of the model, such as AutoProcessor.from_pretrained(…)"
        )
    kind = model.config.model_type
    checked_images(model, asked.photos, asked.text)
    if kind in TRACED_ONLY or (kind in MATCHING and not hasattr(model, "itm_head")):
        raise ValueError(f"{type(model).__name__} is not explained here: use explain.adapters.trace_hugging_face")
    if kind not in DUAL and kind not in CLASSIFIERS:
        return trace_generated(model, processor, asked)
    asked.check_no_context(model)
    return _compared(model, processor, asked) if kind in DUAL else _classified(model, processor, asked)


def _compared(model: Any, processor: Any, asked: Asked) -> TracedSample:
    if asked.target is not None:
        raise ValueError("target: the only output of a dual encoder is the similarity of image and text")
    options: dict[str, Any] = {"truncation": True, "max_length": model.config.text_config.max_position_embeddings}
    padding = {"padding": "max_length"} if model.config.model_type.startswith("siglip") else {}
    more = {**padding, **image_options(model, processor)}
    inputs = processed(model, processor, asked.photos, asked.text, **options, **more)
    tokenizer = processor.tokenizer
    traced = trace_hugging_face(model, inputs, None, asked.layers, needs=asked.needs, tokenizer=tokenizer)
    answer = Answer("similarity", similarity=float(traced.logits[0, 0]))
    traced = _with_words(traced, inputs, asked.question(model), tokenizer, options)
    return _sample(model, processor, asked, inputs, traced, answer, answer)


def image_options(model: Any, processor: Any) -> dict[str, Any]:
    """Return what the processor of a SigLIP 2 must be told, because it has defaults of its own."""
    names = ("patch_size", "max_num_patches") if model.config.model_type == "siglip2" else ()
    return {name: getattr(processor.image_processor, name) for name in names}


def _classified(model: Any, processor: Any, asked: Asked) -> TracedSample:
    inputs = processed(model, processor, asked.photos, asked.text)
    labels = class_labels(model)
    goals = asked.target if isinstance(asked.target, tuple) else (asked.target,)
    classes = [] if asked.target is None else [class_of(labels, goal) for goal in goals]
    y: Target = predicted if not classes else given(classes[0]) if len(classes) == 1 else margin(*classes)
    tokenizer = None if asked.text is None else getattr(processor, "tokenizer", processor)
    traced = trace_hugging_face(model, inputs, y, asked.layers, needs=asked.needs, tokenizer=tokenizer)
    if asked.text is not None:
        traced = _with_words(traced, inputs, asked.text, tokenizer, {})
    shares = class_probabilities(model, traced.logits[0])
    own, *named = (Answer(labels[k], float(shares[k])) for k in [int(traced.answers[0]), *classes])
    over = named[1] if len(named) > 1 else None
    sample = _sample(model, processor, asked, inputs, traced, own, named[0] if named else own, over)
    return replace(sample, runner_up=second_class(labels, shares))


def class_labels(model: Any) -> list[str]:
    """Return the names of a classifier's classes."""
    if model.config.model_type in MATCHING:
        return MATCHES
    return [str(model.config.id2label[k]) for k in range(model.config.num_labels)]


def _with_words(
    traced: Traced, inputs: Mapping[str, Any], text: str, tokenizer: Any, options: Mapping[str, Any]
) -> Traced:
    """Return the trace with the words as the user wrote them, if the tokenizer knows their characters."""
    if not getattr(tokenizer, "is_fast", False):
        return traced
    first = traced.trace.span("text").start
    words = question_words(inputs["input_ids"][0].tolist(), text, (0, len(text)), tokenizer, options, set())
    return replace(traced, words=[[(word, [first + place for place in places]) for word, places in words]])


def class_probabilities(model: Any, logits: Tensor) -> Tensor:
    """Return the probabilities of classes; those of ViLT's answers and of several labels are independent."""
    several = model.config.model_type == "vilt" or model.config.problem_type == "multi_label_classification"
    logits = logits.float()
    return logits.sigmoid() if several else logits.softmax(-1)


def _sample(
    model: Any,
    processor: Any,
    asked: Asked,
    inputs: Mapping[str, Any],
    traced: Traced,
    answer: Answer,
    explained: Answer,
    over: Answer | None = None,
) -> TracedSample:
    return TracedSample(
        traced=traced,
        photos=asked.photos,
        seen=[seen_box(model, processor, photo.size) for photo in asked.photos],
        views=views_of(model, processor, inputs, asked.photos, traced) if asked.photos else [],
        words=[] if traced.words is None else traced.words[0],
        question=asked.text or "",
        answer=answer,
        explained=explained,
        over=over,
    )
