"""Traces of LXMERT as ``transformers`` has it (Tan and Bansal 2019): two streams, joined by cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.watching import check_evaluation, checked_part, watch_block
from explain.capture.recording import Recorder, record
from explain.targets import Target, predicted
from explain.trace import AttentionTrace


def trace_lxmert(model: nn.Module, inputs: Mapping[str, Any], target: Target = predicted) -> AttentionTrace:
    """The trace of an ``LxmertForQuestionAnswering``, frozen or not, for a batch.

    The joint order is the question from [CLS] on, padded, then the image's objects. The answer is read from [CLS], so
    row 0 of R explains it. Steps: the language layers, the object layers, then in each cross layer both
    cross-attentions side by side and both self-attentions side by side. The blocks are post-norm: X is what enters the
    block, Y what is added to it before the layer norm.

    Args:
        model: In evaluation mode, with eager attention.
        inputs: The model's keyword arguments.
        target: y [B] as a function of the logits [B, C].

    Raises:
        TraceError: the model is another one, attends otherwise, or is in training mode.
    """
    check_evaluation(model)
    starts = {"text": checked_part(model, "lxmert.embeddings"), "image": checked_part(model, "lxmert.encoder.visn_fc")}
    masks = {"text": inputs.get("attention_mask"), "image": inputs.get("visual_attention_mask")}
    valid: dict[str, Tensor] = {}
    with record() as recorder, ExitStack() as hooks:

        def start(modality: str, _module: nn.Module, _args: object, tokens: Tensor) -> Tensor:
            mask = masks[modality]
            valid[modality] = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
            return recorder.inputs(modality, tokens)

        for modality, module in starts.items():
            hooks.enter_context(module.register_forward_hook(partial(start, modality)))
        _watch_layers(hooks, recorder, model)
        logits = model(**{**inputs, "return_dict": True}).question_answering_score
        sizes = {modality: valid[modality].shape[1] for modality in starts}
        return recorder.trace(target(logits), sizes, torch.cat([valid[modality] for modality in starts], 1))


def _watch_layers(hooks: ExitStack, recorder: Recorder, model: nn.Module) -> None:
    for modality, layers in {"text": "lxmert.encoder.layer", "image": "lxmert.encoder.r_layers"}.items():
        for number in range(len(checked_part(model, layers))):
            step = partial(recorder.step, query=modality, key=modality)
            _watch(hooks, model, f"{layers}.{number}.attention", "self", step)
    for number in range(len(checked_part(model, "lxmert.encoder.x_layers"))):
        layer = f"lxmert.encoder.x_layers.{number}"
        _watch_crossing(hooks, recorder, model, layer)
        stage = recorder.new_stage()
        for modality, part in {"text": "lang_self_att", "image": "visn_self_att"}.items():
            step = partial(recorder.step, query=modality, key=modality, stage=stage)
            _watch(hooks, model, f"{layer}.{part}", "self", step)


def _watch_crossing(hooks: ExitStack, recorder: Recorder, model: nn.Module, layer: str) -> None:
    """Both directions run through one module: the text asks where X is the text that entered the layer."""
    stage = recorder.new_stage()
    text: list[Tensor] = []

    def step(residual: Tensor, **tensors: Tensor) -> None:
        query, key = ("text", "image") if any(residual is x for x in text) else ("image", "text")
        recorder.step(query=query, key=key, residual=residual, stage=stage, **tensors)

    hooks.enter_context(checked_part(model, layer).register_forward_pre_hook(lambda _, args: text.extend(args[:1])))
    _watch(hooks, model, f"{layer}.visual_attention", "att", step)


def _watch(hooks: ExitStack, model: nn.Module, name: str, attention: str, step: Callable[..., None]) -> None:
    probabilities = checked_part(model, f"{name}.{attention}.dropout")
    added = checked_part(model, f"{name}.output.dropout")
    watch_block(hooks, name, checked_part(model, name), probabilities, added, step)
