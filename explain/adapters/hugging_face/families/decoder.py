"""Language models that read images: the tokens of their sequence, and the map from an image's tokens to its slots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.hugging_face.answers import with_answer
from explain.adapters.hugging_face.places import in_sequence
from explain.adapters.hugging_face.plan import Cross, Merge, Plan, Stack, layers_of
from explain.adapters.hugging_face.text import is_special, special_ids, words_of
from explain.targets import Answer
from explain.trace import JOINT, TokenMap, TraceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a batch, before the language model: their tokens come first in each sample, then the padding."""

    stacks: Sequence[Stack]  #: of the vision tower
    valid: Tensor  #: bool [B, n_v]
    patches: Tensor  #: bool [B, n_v]: tokens with a box; the others, such as class tokens, come first
    weights: Tensor  #: token map [B, n_slots, n_v] to the language model's image tokens, or from the queries
    boxes: Tensor  #: [B, P, 4], 0 for padding
    images: Tensor  #: number of the image (or tile) of each patch, [B, P]
    grid: tuple[int, int] | None  #: rows and columns of the patches, if each sample has one image of the same size
    queries: Tensor | None = None  #: valid tokens of a modality ``query`` that reads the image, bool [B, n_query]
    #: Layers of the decoder that attend to the image instead of having image tokens, and the places of their keys.
    cross: tuple[frozenset[int], Tensor] | None = None
    merging: nn.Module | None = None  #: module whose first input are the tokens that are merged
    merging_places: Tensor | None = None  #: their places in it
    merging_tokens: Callable[[Tensor], Tensor] | None = None  #: returns the tokens in that input; None: it is them


@dataclass(frozen=True, eq=False)
class Sequences:
    """The text of a batch with image slots, after an answer was added."""

    inputs: dict[str, Any]
    slots: Tensor  #: bool [B, L], True for the language model's image tokens
    text: Tensor  #: bool [B, L], True for all other valid tokens
    answer: Tensor  #: bool [B, L], True for the tokens of the answer

    @property
    def counts(self) -> list[int]:
        """Number of image tokens of each sample."""
        return self.slots.sum(1).tolist()


def sequences(model: Any, inputs: Mapping[str, Any], answer: Answer | None, image_token: int) -> Sequences:
    """Return where the image tokens and the other tokens of a batch are.

    Raises:
        TraceError: There is no text, no image, or a text without an image.
    """
    if not isinstance(inputs.get("input_ids"), Tensor):
        raise TraceError("inputs have no input_ids: the model needs a text with an image token for each image")
    suffix = int(model.config.model_type == "paligemma")  # it reads tokens of type 0 in both directions
    changed, valid, of_answer = with_answer(inputs, answer, suffix)
    slots = (changed["input_ids"] == image_token) & valid & ~of_answer
    pixels = inputs.get("pixel_values")
    if pixels is None and not bool(slots.any()):
        raise TraceError("inputs have no pixel_values and no image tokens: a text alone is not explained here")
    if pixels is None:
        raise TraceError("inputs have no pixel_values: the text has image tokens, so the model needs an image")
    empty = (~slots.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise TraceError(f"the text of sample {empty[0]} has no image token: apply the processor's chat template")
    return Sequences(changed, slots, valid & ~slots, of_answer)


def decoder_plan(
    model: Any,
    text: Sequences,
    images: Images,
    answer: Answer | None,
    tokenizer: Any,
    language_model: nn.Module,
) -> Plan:
    """Return the plan of a language model that reads images.

    The joint order is the image tokens, then the text: for the input the vision tower's tokens, in the language model
    its image tokens. The answer is read at the last token, and each token of a given answer at the token before it.

    Args:
        model: The whole model.
        text: Its sequences.
        images: Their images.
        answer: The given answer, if any.
        tokenizer: The text's tokenizer, if the words are wanted.
        language_model: The part of the model with the decoder's layers.
    """
    slots, words = in_sequence(text.slots), in_sequence(text.text)
    ids = text.inputs["input_ids"]
    joint = torch.cat([slots, words], 1)
    queries = images.valid[:, :0] if images.queries is None else images.queries
    n_image = images.valid.shape[1]
    outside = n_image if images.cross else 0  # rows of image tokens that are not in the sequence
    read = read_out(text, answer, joint, outside)
    special = special_ids(model.config, model.config.get_text_config(), tokenizer=tokenizer)
    own = ids.flatten()[words.clamp(min=0)]
    inside = (words >= 0) & ~is_special(own, special) & ~text.answer.flatten()[words.clamp(min=0)]

    def run() -> Tensor:
        options = {**text.inputs, "use_cache": False, "return_dict": True}
        return read.logits(model(**options).logits)

    blocks = layers_of(model, language_model)
    decoder = Stack("text", blocks, JOINT, joint, {"text": words}, _merges(images, slots), _linear(model, blocks))
    if images.cross is not None:
        cross = Cross(images.cross[0], "image", words, images.cross[1])
        decoder = Stack("text", blocks, "text", words, {"text": words}, cross=cross)
    return Plan(
        sizes={"image": n_image, **({"query": queries.shape[1]} if queries.numel() else {}), "text": words.shape[1]},
        valid=read.valid(torch.cat([images.valid, queries], 1), words),
        stacks=[*images.stacks, decoder],
        run=run,
        removable=torch.cat([images.patches, torch.zeros_like(queries), inside], 1),
        readout=dict.fromkeys(("image", "text"), read.rows),
        grid=images.grid,
        boxes=images.boxes,
        images=images.images,
        words=None if tokenizer is None else words_of(own, inside, n_image + queries.shape[1], tokenizer),
    )


def _linear(model: Any, blocks: Sequence[tuple[str, nn.Module]]) -> frozenset[int]:
    """Return the layers with linear attention, which has no map; their names are logged."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    skipped = [number for number, kind in enumerate(kinds) if kind == "linear_attention"]
    if skipped:
        names = ", ".join(blocks[number][0] for number in skipped)
        logger.warning("layers with linear attention have no attention map and are left out: %s", names)
    return frozenset(skipped)


def _merges(images: Images, slots: Tensor) -> list[Merge]:
    if images.queries is not None:
        handed = TokenMap(modality="image", source="query", weights=images.weights, valid=slots >= 0)
        gone = images.weights.new_zeros(len(slots), 0, images.queries.shape[1])
        return [Merge(handed), Merge(TokenMap(modality="query", weights=gone))]
    step = TokenMap(modality="image", weights=images.weights, valid=slots >= 0)
    return [Merge(step, images.merging, images.merging_places, images.merging_tokens)]


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Which logits of a decoder are read and explained."""

    places: Tensor  #: places of the tokens whose logits are read, [B, T]
    wanted: Tensor  #: which of them are explained, bool [B, T]
    rows: Tensor  #: rows of R that explain them: one per item, or weights of all rows
    answer: Answer | None

    def logits(self, whole: Tensor) -> Tensor:
        """Return the logits that are read, [B, C] or for an answer [B, T, C], from those of all tokens [B, L, C]."""
        read = whole.flatten(0, 1)[self.places]
        return read[:, 0] if self.answer is None else read

    def valid(self, before: Tensor, words: Tensor) -> Tensor:
        """Return the valid tokens, bool [B, N], or [B, T, N] if each token of an answer is explained.

        An answer's tokens that come after those that are read do not count.

        Args:
            before: Valid tokens before the decoder's words in the joint order.
            words: Places of the decoder's words.
        """
        if self.answer is not None and self.answer.each:
            seen = (words >= 0)[:, None, :] & (words[:, None, :] <= self.places[:, :, None])
            return torch.cat([before[:, None].expand(-1, seen.shape[1], -1), seen], 2)
        last = self.places.where(self.wanted, -1).max(1, keepdim=True).values
        return torch.cat([before, (words >= 0) & (words <= last)], 1)


def read_out(text: Sequences, answer: Answer | None, joint: Tensor, outside: int) -> ReadOut:
    """Return which logits of a decoder are read: those of the last token, or of the token before each of an answer.

    Args:
        text: The decoder's sequences.
        answer: The given answer, if any.
        joint: Places of the decoder's tokens in the joint order.
        outside: Number of rows of R before them.
    """
    valid = text.slots | text.text
    batch, length = valid.shape
    first = torch.arange(batch, device=valid.device)[:, None] * length
    if answer is None:
        last = first + length - 1 - valid.flip(1).int().argmax(1, keepdim=True)
        rows = outside + _positions(joint, last)[:, 0]
        return ReadOut(last, torch.ones_like(last, dtype=torch.bool), rows, answer)
    places = in_sequence(text.answer)
    before = (places - 1).where(places >= 0, first)  # the token before predicts; padding must not read another sample
    wanted, positions = answer.wanted_tokens(batch, valid.device), outside + _positions(joint, before)
    rows = positions[wanted] if answer.each else _mean_rows(positions, wanted, outside + joint.shape[1])
    return ReadOut(before, wanted, rows, answer)


def _positions(joint: Tensor, places: Tensor) -> Tensor:
    """Return the joint positions of tokens at the given places, [B, T]."""
    return (joint[:, None, :] == places[:, :, None]).int().argmax(-1)


def _mean_rows(positions: Tensor, wanted: Tensor, tokens: int) -> Tensor:
    """Return equal weights of the rows of each sample's explained tokens, [B, N_rows]."""
    weights = torch.zeros(len(positions), tokens, device=positions.device)
    weights.scatter_add_(1, positions, wanted.to(weights))
    return weights / weights.sum(1, keepdim=True)
