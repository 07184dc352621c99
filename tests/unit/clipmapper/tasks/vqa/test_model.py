"""Tests of the whole model: its recording, its batches, and which part of it is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import ANSWERS, TEXTS, pictures, random_encoder, random_vqa
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.nn import TokenSubset
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from explain.capture.recording import record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES, READOUTS = ("a", "b"), ("cls", "eot", "token")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def inputs() -> tuple[Tensor, TextBatch, TokenSubset, TokenSubset]:
    """Return three images and questions, and subsets that leave out some patches and words."""
    pixels, questions = pictures(3), random_encoder().tokenize(TEXTS[:3])
    keep = torch.tensor([[True] * 10, [True] * 5 + [False] * 5, [True, False] * 5])
    words = questions.valid.clone()
    words[0, 2] = words[2, 4] = False
    return pixels, questions, TokenSubset.from_mask(keep), TokenSubset.from_mask(words)


UNIMODAL = [("image", "image")] * 2 + [("text", "text")] * 2
LAYER_B = [("image", "image"), ("text", "text"), ("image", "text"), ("text", "image")]
STEPS = {"a": UNIMODAL + [("joint", "joint")] * 3, "b": UNIMODAL + LAYER_B * 2}


@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("readout", ["cls", "eot"])
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_has_the_steps_in_order_and_changes_no_logit(name: str, readout: str, positions: str) -> None:
    model = random_vqa(name, readout, positions)
    pixels, questions, image, text = inputs()
    fast = model(pixels, questions, image, text)
    with record() as recorder:
        logits = model(pixels, questions, image, text)
        valid = torch.cat([image.valid, text.valid], 1)
        sizes = {"image": image.index.shape[1], "text": text.index.shape[1]}
        trace = recorder.trace(logits[:, 1], sizes=sizes, valid=valid)
    torch.testing.assert_close(logits, fast, **CLOSE)
    assert [(step.query, step.key) for step in trace.steps] == STEPS[name]
    stages = [[(step.query, step.key) for step in stage] for stage in trace.stages()]
    crossed = [stage for stage in stages if len(stage) > 1]
    assert crossed == ([[("image", "text"), ("text", "image")]] * 2 if name == "b" else [])
    for step in trace.steps:
        torch.testing.assert_close(step.attention.sum(-1), torch.ones_like(step.attention[..., 0]))
        padding = ~valid[:, trace.span(step.key)]
        assert not step.attention[padding[:, None, None].expand_as(step.attention) & rows(step, trace, valid)].any()


def rows(step: Any, trace: Any, valid: Tensor) -> Tensor:
    """Return which rows of A belong to tokens; the rows of padding are not tested."""
    return valid[:, trace.span(step.query)][:, None, :, None].expand_as(step.attention)


@pytest.mark.parametrize("readout", ["cls", "eot"])
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_tensors_reproduce_the_mappers_residual_streams(name: str, readout: str) -> None:
    model = random_vqa(name, readout)
    pixels, questions, image, text = inputs()
    with record() as recorder:
        logits = model(pixels, questions, image, text)
        sizes = {"image": image.index.shape[1], "text": text.index.shape[1]}
        trace = recorder.trace(logits[:, 1], sizes=sizes, valid=torch.cat([image.valid, text.valid], 1))
    mapper: Any = model.trained.mapper
    streams: dict[str, Tensor] = {}
    for number, step in enumerate(trace.steps[4:]):
        if step.query in streams:
            torch.testing.assert_close(step.tensor("residual"), streams[step.query], **CLOSE)
        x = step.tensor("residual") + step.tensor("output")
        if name == "a":
            x = mapper.feed_forwards[number](x)
        elif step.is_cross:
            layers = mapper.image_layers if step.query == "image" else mapper.text_layers
            x = layers[number // 4].feed_forward(x)
        streams[step.query] = x.detach()
    if name == "a":
        place = 0 if readout == "cls" else sizes["image"] + text.valid.sum(1) - 1
        read = streams["joint"][torch.arange(3), place]
    else:
        read = streams["image"][:, 0] if readout == "cls" else streams["text"][torch.arange(3), text.valid.sum(1) - 1]
    torch.testing.assert_close(model.trained.head(read), logits, **CLOSE)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_question_has_the_same_logits_alone_and_in_any_batch(name: str, readout: str) -> None:
    model = random_vqa(name, readout, "learnt")
    pixels, questions, image, text = inputs()
    together = model(pixels, questions, image, text)
    for fewer in (model(pixels, questions, image), model(pixels, questions, None, text)):
        assert not torch.allclose(together, fewer, atol=1e-4)  # both subsets have an effect
    order = torch.tensor([1, 2, 0])
    shuffled = model(
        pixels[order],
        TextBatch(questions.ids[order], questions.valid[order], 0),
        TokenSubset(image.index[order], image.valid[order]),
        TokenSubset(text.index[order], text.valid[order]),
    )
    torch.testing.assert_close(shuffled, together[order], **CLOSE)
    for b in range(3):
        one = slice(b, b + 1)
        v, t = image.valid[b], text.valid[b]
        alone = model(
            pixels[one],
            random_encoder().tokenize([TEXTS[b]]),
            TokenSubset(image.index[one, v], image.valid[one, v]),
            TokenSubset(text.index[one, t], text.valid[one, t]),
        )
        torch.testing.assert_close(alone, together[one], **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_mapper_is_trained(name: str) -> None:
    encoder, mapper = random_encoder(), random_vqa(name).trained.requires_grad_(True)
    model = CLIPMapperVQA(encoder, mapper, ANSWERS).train()
    assert not any(module.training for module in model.encoder.modules())
    assert model.trained.training
    model(pictures(2), encoder.tokenize(["a", "b c"])).sum().backward()
    learning = {part.split(".")[0] for part, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {"trained"}
