"""Traces of ViLT as ``transformers`` has it (Kim et al. 2021): one joint stream, text tokens before image tokens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from explain.adapters.watching import check_evaluation, checked_part, replaced, watch_block
from explain.capture.recording import Recorder, record
from explain.targets import Target, predicted
from explain.trace import JOINT, AttentionTrace, TraceError


def trace_vilt(model: nn.Module, inputs: Mapping[str, Any], target: Target = predicted) -> AttentionTrace:
    """The trace of a ``ViltForQuestionAnswering``, frozen or not, for a batch.

    The joint order is ViLT's own: the question from [CLS] on, padded; then the image's class token and its patches row
    by row, padded. (ViLT itself shuffles the patches; they are put in order before its first layer.) The answer is
    read from [CLS], so row 0 of R explains it. Input embeddings are those with positions, before the modality's type
    embedding.

    Args:
        model: In evaluation mode, with eager attention.
        inputs: The model's keyword arguments, with ``pixel_values``; ``config.max_image_length`` must not drop patches.
        target: y [B] as a function of the logits [B, C].

    Raises:
        TraceError: the model is another one, attends otherwise or is in training mode, or no pixels were given.
    """
    check_evaluation(model)
    layers = checked_part(model, "vilt.encoder.layer")
    with record() as recorder, ExitStack() as hooks:
        seen = _Embedded(recorder, hooks, checked_part(model, "vilt.embeddings"))
        for number, layer in enumerate(layers):
            name = f"vilt.encoder.layer.{number}"
            probabilities = checked_part(model, f"{name}.attention.attention.dropout")
            added = checked_part(model, f"{name}.attention.output.dropout")
            watch_block(hooks, name, layer, probabilities, added, partial(recorder.step, query=JOINT, key=JOINT))
        logits = model(**{**inputs, "return_dict": True}).logits
        if "image" not in seen.sizes:
            raise TraceError("the image was given as embeddings: a trace of ViLT needs pixel_values")
        return recorder.trace(target(logits), seen.sizes, seen.valid)


class _Embedded:
    """What ViLT's embeddings say of the tokens, as they run; they start the graph."""

    def __init__(self, recorder: Recorder, hooks: ExitStack, embeddings: Any):
        self.sizes: dict[str, int] = {}
        self.valid: Tensor | None = None  # [B, N]
        self._recorder = recorder
        self._embed_image = embeddings.visual_embed
        hooks.enter_context(embeddings.text_embeddings.register_forward_hook(self._text))
        hooks.enter_context(replaced(embeddings, "visual_embed", self._image))
        hooks.enter_context(embeddings.register_forward_hook(self._joint))

    def _text(self, _module: nn.Module, _args: object, text: Tensor) -> Tensor:
        self.sizes["text"] = text.shape[1]
        return self._recorder.inputs("text", text)

    def _image(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor, Any]:
        image, mask, places = self._embed_image(*args, **options)
        self.sizes["image"] = image.shape[1]
        # Padding is last before and after; ViLT asks for the places no more.
        return self._recorder.inputs("image", _row_by_row(image, mask, places)), mask, places

    def _joint(self, _module: nn.Module, _args: object, output: tuple[Tensor, Tensor]) -> None:
        self.valid = output[1].bool()


def _row_by_row(image: Tensor, mask: Tensor, places: Any) -> Tensor:
    """Class token [B, 1 + P, D], then patches by their (row, column) in ``places``, then padding by ``mask``."""
    index, (height, width) = places
    at = index[:, :, 0] * width + index[:, :, 1] + (1 - mask[:, 1:]) * height * width
    order = nn.functional.pad(at.argsort(dim=1, stable=True) + 1, (1, 0))
    return image.take_along_dim(order[:, :, None], 1)
