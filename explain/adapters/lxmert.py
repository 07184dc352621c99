"""Traces of the LXMERT of ``transformers`` (Tan and Bansal 2019): two streams, joined by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.blocks import Seen, Watch, watch_block
from explain.adapters.watching import (
    Layers,
    check_evaluation,
    checked_part,
    chosen_blocks,
    recorded_blocks,
)
from explain.adapters.words import between_markers, wordpiece_words
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.passes import capture
from explain.capture.recording import Recorder
from explain.targets import Target, predicted
from explain.traced import Traced

STACKS = {"text": "lxmert.encoder.layer", "image": "lxmert.encoder.r_layers", "cross": "lxmert.encoder.x_layers"}


def trace_lxmert(
    model: nn.Module,
    inputs: Mapping[str, Any],
    target: Target = predicted,
    *,
    needs: Needs = EVERYTHING,
    layers: Layers = None,
    tokenizer: Any = None,
) -> Traced:
    """Run an ``LxmertForQuestionAnswering``, frozen or not, on a batch and return the trace.

    The joint order is the padded question, starting with [CLS], then the image's objects. The answer is read from
    [CLS], row 0 of R. The steps are the language layers, then the object layers, then the cross layers. In each cross
    layer, the two cross-attentions run in parallel, and then the two self-attentions run in parallel. The blocks are
    post-norm: X enters the block, and Y is added to it before the layer norm.

    ``boxes`` are ``visual_pos``, the objects' boxes [B, n_v, 4] as fractions of the image's width and height, because
    LXMERT sees no pixels. There is no grid.

    Args:
        model: The model, in evaluation mode and with eager attention.
        inputs: The model's keyword arguments.
        target: y [B] as a function of the logits [B, C].
        needs: Fields of the trace; by default all except LRP relevance.
        layers: Indices of the layers to record in every stack, or ``{"text": …, "image": …, "cross": …}``; None records
            all. The gradient graph of each stream starts at its lowest recorded layer, where R starts as the identity.
        tokenizer: The question's tokenizer, needed only to group tokens into ``words``.

    Raises:
        TraceError: The model is of another class, does not use eager attention or is in training mode, or a layer in
            ``layers`` does not exist.
    """
    check_evaluation(model)
    starts = {"text": checked_part(model, "lxmert.embeddings"), "image": checked_part(model, "lxmert.encoder.visn_fc")}
    chosen = chosen_blocks(layers, {stack: len(checked_part(model, path)) for stack, path in STACKS.items()})
    masks = {"text": inputs.get("attention_mask"), "image": inputs.get("visual_attention_mask")}
    valid: dict[str, Tensor] = {}

    def run(recorder: Recorder) -> Tensor:
        def embedded(modality: str, _module: nn.Module, _args: object, tokens: Tensor) -> Tensor:
            mask = masks[modality]
            valid[modality] = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
            return recorder.inputs(modality, tokens, start=False)

        with ExitStack() as hooks:
            for modality, module in starts.items():
                hooks.enter_context(module.register_forward_hook(partial(embedded, modality)))
            _watch_layers(hooks, recorder, model, chosen)
            logits: Tensor = model(**{**inputs, "return_dict": True}).question_answering_score
            return logits

    def layout() -> tuple[dict[str, int], Tensor, None]:
        return {m: valid[m].shape[1] for m in starts}, torch.cat([valid[m] for m in starts], 1), None

    trace, logits = capture(model, run, target, needs, layout)
    inside = between_markers(valid["text"])
    return Traced(
        trace=trace,
        logits=logits,
        removable=torch.cat([inside, valid["image"]], 1),
        readout=dict.fromkeys(starts, torch.zeros(len(inside), dtype=torch.long, device=inside.device)),
        boxes=inputs.get("visual_pos"),
        words=None if tokenizer is None else wordpiece_words(inputs["input_ids"], inside, tokenizer),
    )


def _watch_layers(hooks: ExitStack, recorder: Recorder, model: nn.Module, chosen: Mapping[str, Sequence[int]]) -> None:
    needs, watch = recorder.needs, Watch()
    for modality in ("text", "image"):
        recorded, first = recorded_blocks(chosen[modality], needs)
        if chosen["cross"] and not needs.all_steps:  # the cross layers contain the last attention of every kind
            recorded = []
        if chosen["cross"] and not needs.gradients_of_all_steps:
            first = None
        for number in recorded:
            name = f"{STACKS[modality]}.{number}.attention"
            step = partial(Seen.record, recorder=recorder, query=modality, key=modality)
            start = partial(recorder.start, modality) if number == first else None
            watch_block(hooks, watch, name, checked_part(model, name), step, start)
    recorded, first = recorded_blocks(chosen["cross"], needs)
    for number in recorded:
        layer = f"{STACKS['cross']}.{number}"
        _watch_crossing(hooks, watch, recorder, model, layer, starts=number == first)
        stage = recorder.new_stage()
        for modality, part in {"text": "lang_self_att", "image": "visn_self_att"}.items():
            name = f"{layer}.{part}"
            step = partial(Seen.record, recorder=recorder, query=modality, key=modality, stage=stage)
            watch_block(hooks, watch, name, checked_part(model, name), step)
    hooks.enter_context(watch)


def _watch_crossing(
    hooks: ExitStack, watch: Watch, recorder: Recorder, model: nn.Module, layer: str, starts: bool
) -> None:
    """Watch the two cross-attentions of a layer, which run through the same module.

    A call is the text's if its X is the text that entered the layer.
    """
    stage = recorder.new_stage()
    texts: list[Tensor] = []

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        text, text_mask, image, *rest = args
        if starts:
            text, image = recorder.start("text", text), recorder.start("image", image)
        texts.append(text)
        return text, text_mask, image, *rest

    def step(seen: Seen) -> None:
        query, key = ("text", "image") if any(seen.residual is x for x in texts) else ("image", "text")
        seen.record(recorder, query, key, stage)

    name = f"{layer}.visual_attention"
    hooks.enter_context(checked_part(model, layer).register_forward_pre_hook(enter))
    watch_block(hooks, watch, name, checked_part(model, name), step)
