"""Traces of the ViLT of ``transformers`` (Kim et al. 2021): one joint stream, text tokens before image tokens."""

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
    replaced,
)
from explain.adapters.words import between_markers, wordpiece_words
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.passes import capture
from explain.capture.recording import Recorder
from explain.targets import Target, predicted
from explain.trace import JOINT, TraceError
from explain.traced import Traced


def trace_vilt(
    model: nn.Module,
    inputs: Mapping[str, Any],
    target: Target = predicted,
    *,
    needs: Needs = EVERYTHING,
    layers: Layers = None,
    tokenizer: Any = None,
) -> Traced:
    """Run a ``ViltForQuestionAnswering``, frozen or not, on a batch and return the trace.

    The joint order is ViLT's: the padded question, starting with [CLS], then the image's class token and its patches,
    padded. ViLT shuffles the patches; the adapter puts them into row-by-row order before the first layer. The answer is
    read from [CLS], row 0 of R. The input embeddings are those that enter the first layer, with positions and types. If
    the images of a batch differ in size there is no common grid, and ``boxes`` are [B, P, 4], 0 for padding.

    Args:
        model: The model, in evaluation mode and with eager attention.
        inputs: The model's keyword arguments, with ``pixel_values``; ``config.max_image_length`` must not drop patches.
        target: y [B] as a function of the logits [B, C].
        needs: Fields of the trace; by default all except LRP relevance.
        layers: Indices of the layers to record; None records all. The gradient graph starts at the lowest recorded
            layer, where R starts as the identity.
        tokenizer: The question's tokenizer, needed only to group tokens into ``words``.

    Raises:
        TraceError: The model is of another class, does not use eager attention or is in training mode, no pixels were
            given, or a layer in ``layers`` does not exist.
    """
    check_evaluation(model)
    count = len(checked_part(model, "vilt.encoder.layer"))
    chosen = chosen_blocks(layers, {JOINT: count})[JOINT]
    seen = _Embedded(checked_part(model, "vilt.embeddings"))

    def run(recorder: Recorder) -> Tensor:
        with ExitStack() as hooks:
            seen.watch(hooks, recorder)
            _watch_layers(hooks, recorder, model, chosen)
            logits: Tensor = model(**{**inputs, "return_dict": True}).logits
            return logits

    trace, logits = capture(model, run, target, needs, seen.layout)
    sizes, valid, grid = seen.layout()
    questions, images = valid.split(list(sizes.values()), 1)
    inside = between_markers(questions)
    boxes, _ = seen.boxes()
    first = torch.zeros(len(valid), dtype=torch.long, device=valid.device)
    return Traced(
        trace=trace,
        logits=logits,
        removable=torch.cat([inside, torch.zeros_like(images[:, :1]), images[:, 1:]], 1),
        readout=dict.fromkeys(sizes, first),
        grid=grid,
        boxes=boxes,
        words=None if tokenizer is None else wordpiece_words(inputs["input_ids"], inside, tokenizer),
    )


def _watch_layers(hooks: ExitStack, recorder: Recorder, model: nn.Module, chosen: Sequence[int]) -> None:
    recorded, first = recorded_blocks(chosen, recorder.needs)
    watch = Watch()
    for number in recorded:
        name = f"vilt.encoder.layer.{number}"
        start = partial(recorder.start, JOINT) if number == first else None
        step = partial(Seen.record, recorder=recorder, query=JOINT, key=JOINT)
        watch_block(hooks, watch, name, checked_part(model, name), step, start)
    hooks.enter_context(watch)


class _Embedded:
    """The layout of the tokens, read from ViLT's embeddings while they run."""

    def __init__(self, embeddings: Any):
        self._embeddings = embeddings
        self._sizes: dict[str, int] = {}
        self._valid: Tensor | None = None  # [B, N]
        self._places: Tensor | None = None  # row and column of each patch, [B, P, 2]

    def watch(self, hooks: ExitStack, recorder: Recorder) -> None:
        """Watch the embeddings, record them, and put the patches into row-by-row order.

        The model is restored when ``hooks`` is closed.
        """
        embed_image = self._embeddings.visual_embed

        def text(_module: nn.Module, _args: object, text: Tensor) -> None:
            self._sizes["text"] = text.shape[1]

        def image(*args: Any, **options: Any) -> tuple[Tensor, Tensor, Any]:
            image, mask, places = embed_image(*args, **options)
            self._sizes["image"] = image.shape[1]
            order = _row_by_row_order(mask, places)
            self._places = places[0].take_along_dim(order[:, :, None], 1)
            tokens = nn.functional.pad(order + 1, (1, 0))  # the class token comes first
            # The mask still fits, because padding stays last; ViLT does not use the places again.
            return image.take_along_dim(tokens[:, :, None], 1), mask, places

        def joint(_module: nn.Module, _args: object, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            embeddings, mask = output
            self._valid = mask.bool()
            first = self._sizes["text"]
            parts = {"text": embeddings[:, :first], "image": embeddings[:, first:]}
            return torch.cat([recorder.inputs(m, part, start=False) for m, part in parts.items()], 1), mask

        hooks.enter_context(self._embeddings.text_embeddings.register_forward_hook(text))
        hooks.enter_context(replaced(self._embeddings, "visual_embed", image))
        hooks.enter_context(self._embeddings.register_forward_hook(joint))

    def layout(self) -> tuple[dict[str, int], Tensor, tuple[int, int] | None]:
        """Return the number of tokens of each modality, the valid tokens, bool [B, N], and the grid of the patches.

        Raises:
            TraceError: The image was not given as pixels.
        """
        if self._valid is None or self._places is None:
            raise TraceError("the image was given as embeddings: a trace of ViLT needs pixel_values")
        return self._sizes, self._valid, self.boxes()[1]

    def boxes(self) -> tuple[Tensor, tuple[int, int] | None]:
        """Return the box of each patch in pixels (left, top, right, bottom), and the grid.

        If all samples have the same boxes, these are [P, 4]; otherwise they are [B, P, 4] and the grid is None.
        """
        assert self._places is not None
        assert self._valid is not None
        height, width = self._embeddings.patch_embeddings.projection.weight.shape[2:]
        row, col = self._places.unbind(-1)
        corners = torch.stack([col * width, row * height, (col + 1) * width, (row + 1) * height], -1)
        corners = corners.masked_fill(~self._valid[:, -corners.shape[1] :, None], 0)
        if not bool((corners == corners[:1]).all()):
            return corners, None
        return corners[0], (int(row.max()) + 1, int(col.max()) + 1)


def _row_by_row_order(mask: Tensor, places: Any) -> Tensor:
    """Return the order that sorts patches by row and column, with padding last, [B, P].

    Args:
        mask: The image's valid tokens, [B, 1 + P].
        places: ViLT's patch index: (row, column) of each patch, and the size of the grid.
    """
    index, (height, width) = places
    at = index[:, :, 0] * width + index[:, :, 1] + (1 - mask[:, 1:]) * height * width
    return at.argsort(dim=1, stable=True)
