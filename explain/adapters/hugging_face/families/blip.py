"""BLIP: a text encoder or decoder reads an image by cross-attention; to answer questions, a decoder reads the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.hugging_face.answers import with_answer
from explain.adapters.hugging_face.families.decoder import Sequences, read_out
from explain.adapters.hugging_face.families.tower import Frames
from explain.adapters.hugging_face.plan import (
    Cross,
    Plan,
    Stack,
    check_no_answer,
    check_pairs,
    crossing_blocks,
    needed,
    whole_batch,
)
from explain.adapters.hugging_face.text import inside_markers, is_special, special_ids, words_of
from explain.targets import Answer
from explain.trace import TraceError
from explain.traced import Word, grid_boxes


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a BLIP that matches, answers or describes.

    The blocks of a text's stack are its self- and cross-attentions, in order.

    - ``BlipForImageTextRetrieval``: the logits of "no match" and "match", read at the text's first token.
    - ``BlipForQuestionAnswering``: the logits of the answer's next token. The answer is a modality ``answer`` that
      attends to the text; it begins with ``decoder_input_ids``, or else with the token that begins any answer. The
      library ignores the mask in this attention, so the padding of a text is read as well and is valid in the trace.
    - ``BlipForConditionalGeneration``: the logits of the text's next token. The text is the beginning of a caption.

    Raises:
        TraceError: The model is of another class, an input is missing or does not fit, or an answer is given to a model
            that only matches.
    """
    kinds: dict[str, Callable[..., Plan]] = {
        "BlipForImageTextRetrieval": _matching,
        "BlipForQuestionAnswering": _answering,
        "BlipForConditionalGeneration": _captioning,
    }
    name = type(model).__name__
    if name not in kinds:
        raise TraceError(f"{name} has no logits to explain: load {', '.join(kinds)}")
    pixels = needed(inputs, "pixel_values", "the model needs an image")
    check_pairs(pixels, needed(inputs, "input_ids", "the model needs a text"))
    return kinds[name](model, inputs, answer, tokenizer, _Image.of(model, pixels))


@dataclass(frozen=True, eq=False)
class _Image:
    """The images of a batch."""

    stack: Stack
    patches: Tensor  #: which tokens are patches, bool [B, n]
    grid: tuple[int, int]
    boxes: Tensor  #: [P, 4]

    @classmethod
    def of(cls, model: Any, pixels: Tensor) -> _Image:
        frames = Frames.of(model, model.vision_model, pixels)
        places = whole_batch(len(pixels), frames.prefix + frames.patches, pixels.device)
        patches = (torch.arange(places.shape[1], device=pixels.device) >= frames.prefix).expand(len(pixels), -1)
        stack = Stack("image", frames.blocks, "image", places, {"image": places})
        return cls(stack, patches, frames.grid, grid_boxes(frames.grid, frames.patch, pixels.device))

    @property
    def tokens(self) -> int:
        """Number of tokens of an image."""
        return self.patches.shape[1]


@dataclass(frozen=True, eq=False)
class _Text:
    """The texts of a batch."""

    stack: Stack
    inside: Tensor  #: which tokens belong to words, bool [B, n]
    words: Sequence[Sequence[Word]] | None

    @property
    def valid(self) -> Tensor:
        """Which tokens are no padding, bool [B, n]."""
        return self.stack.places >= 0


def _reader(model: Any, part: nn.Module, modality: str, valid: Tensor, key: str, keys: Tensor) -> Stack:
    """Return the stack of a text model whose cross-attentions read the modality ``key`` at the places ``keys``."""
    blocks, crossed = crossing_blocks(model, part)
    places = whole_batch(len(valid), valid.shape[1], valid.device).masked_fill(~valid, -1)
    return Stack(modality, blocks, modality, places, {modality: places}, cross=Cross(crossed, key, places, keys))


def _encoded(model: Any, inputs: Mapping[str, Any], tokenizer: Any, image: _Image, padding: bool) -> _Text:
    """Return the texts of an encoder; ``padding``: whether their padding is read, and therefore valid."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    valid = torch.ones_like(real) if padding else real
    stack = _reader(model, model.text_encoder, "text", valid, "image", image.stack.places)
    inside = inside_markers(ids, real, model.config.text_config, tokenizer)
    return _Text(stack, inside, None if tokenizer is None else words_of(ids, inside, image.tokens, tokenizer))


def _matching(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any, image: _Image) -> Plan:
    check_no_answer(model, answer)
    if inputs.get("use_itm_head") is False:
        raise TraceError("use_itm_head=False compares each image with each text: leave it out to trace pairs")
    text = _encoded(model, inputs, tokenizer, image, padding=False)

    def run() -> Tensor:
        scores: Tensor = model(**{**inputs, "return_dict": True}).itm_score
        return scores

    first = torch.full_like(text.stack.places[:, 0], image.tokens)
    return Plan(
        sizes={"image": image.tokens, "text": text.valid.shape[1]},
        valid=torch.cat([torch.ones_like(image.patches), text.valid], 1),
        stacks=[image.stack, text.stack],
        run=run,
        removable=torch.cat([image.patches, text.inside], 1),
        readout=dict.fromkeys(("image", "text"), first),
        grid=image.grid,
        boxes=image.boxes,
        words=text.words,
    )


def _answering(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any, image: _Image) -> Plan:
    text = _encoded(model, inputs, tokenizer, image, padding=True)
    begin = inputs.get("decoder_input_ids")
    if begin is None:
        begin = torch.full_like(inputs["input_ids"][:, :1], model.decoder_start_token_id)
    said = _sequences({"input_ids": begin, "attention_mask": inputs.get("decoder_attention_mask")}, answer)
    decoder = _reader(model, model.text_decoder, "answer", said.text, "text", text.stack.places)
    before = torch.cat([torch.ones_like(image.patches), text.valid], 1)
    read = read_out(said, answer, decoder.places, before.shape[1])
    options = {**inputs, "use_cache": False, "return_dict": True}
    options |= {f"decoder_{name}": tensor for name, tensor in said.inputs.items()}

    def run() -> Tensor:
        whole: list[Tensor] = []  # the model itself returns no logits
        with model.text_decoder.register_forward_hook(lambda _, __, output: whole.append(output.logits)):
            model(**options)
        return read.logits(whole[0])

    return Plan(
        sizes={"image": image.tokens, "text": text.valid.shape[1], "answer": decoder.places.shape[1]},
        valid=read.valid(before, decoder.places),
        stacks=[image.stack, text.stack, decoder],
        run=run,
        removable=torch.cat([image.patches, text.inside, torch.zeros_like(decoder.places, dtype=torch.bool)], 1),
        readout=dict.fromkeys(("image", "text"), read.rows),
        grid=image.grid,
        boxes=image.boxes,
        words=text.words,
    )


def _captioning(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any, image: _Image) -> Plan:
    said = _sequences(inputs, answer)
    decoder = _reader(model, model.text_decoder, "text", said.text, "image", image.stack.places)
    read = read_out(said, answer, decoder.places, image.tokens)
    ids = said.inputs["input_ids"]
    inside = said.text & ~is_special(ids, special_ids(model.config.text_config, tokenizer=tokenizer)) & ~said.answer

    def run() -> Tensor:
        return read.logits(model(**{**said.inputs, "use_cache": False, "return_dict": True}).logits)

    return Plan(
        sizes={"image": image.tokens, "text": decoder.places.shape[1]},
        valid=read.valid(torch.ones_like(image.patches), decoder.places),
        stacks=[image.stack, decoder],
        run=run,
        removable=torch.cat([image.patches, inside], 1),
        readout=dict.fromkeys(("image", "text"), read.rows),
        grid=image.grid,
        boxes=image.boxes,
        words=None if tokenizer is None else words_of(ids, inside, image.tokens, tokenizer),
    )


def _sequences(inputs: Mapping[str, Any], answer: Answer | None) -> Sequences:
    """Return a decoder's sequences, which have no image tokens."""
    changed, valid, of_answer = with_answer(inputs, answer)
    return Sequences(changed, torch.zeros_like(valid), valid, of_answer)
