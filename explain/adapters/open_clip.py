"""Traces of a plain open_clip model: two streams, joined only by the similarity of image and text."""

from __future__ import annotations

from collections.abc import Sequence
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
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.passes import capture
from explain.capture.recording import Recorder
from explain.trace import TraceError
from explain.traced import Traced, Word, grid_boxes


def trace_open_clip(
    model: nn.Module,
    images: Tensor,
    texts: Tensor,
    *,
    needs: Needs = EVERYTHING,
    layers: Layers = None,
    tokenizer: Any = None,
) -> Traced:
    """Run a plain CLIP model, frozen or not, on pairs of an image and a text and return the trace.

    y, the only logit, is the cosine of each image with its text. It is not multiplied by the model's temperature, which
    would only scale all gradients by the same factor. The joint order is the class token and the patches, then the
    padded text. The valid text tokens are those from the start token to the end token. There is no cross-attention, so
    R stays block-diagonal and each modality has a separate read-out row: the class token's for the image (row 0) and
    the end token's for the text.

    In LRP, the normalisation of an embedding passes all relevance on, like a layer norm. The product of the two
    embeddings follows the rule of matrix products, which splits relevance in half between them.

    Args:
        model: The model, in evaluation mode and without gradient checkpointing.
        images: Pixels, [B, 3, H, W].
        texts: Token ids, [B, n_t], from open_clip's tokenizer; the end token has the highest id.
        needs: Fields of the trace; by default all except LRP relevance.
        layers: Indices of the blocks to record in both towers, or ``{"image": …, "text": …}``; None records all. The
            gradient graph of each tower starts at its lowest recorded block, where R starts as the identity.
        tokenizer: open_clip's ``SimpleTokenizer``, needed only to group tokens into ``words``.

    Raises:
        TraceError: The image tower is not a vision transformer read at its class token, the text tower is not a causal
            transformer read at its end token, their attention is not PyTorch's, the model is in training mode, the
            numbers of images and texts differ, or a block in ``layers`` does not exist.
    """
    if len(images) != len(texts):
        raise TraceError(f"{len(images)} images and {len(texts)} texts: each image needs its text")
    check_evaluation(model)
    clip: Any = model
    visual, text = checked_towers(clip)
    chosen = chosen_blocks(
        layers, {"image": len(visual.transformer.resblocks), "text": len(text.transformer.resblocks)}
    )

    def cosine(recorder: Recorder) -> Tensor:
        with ExitStack() as hooks:
            watch = Watch()
            _watch_tower(hooks, watch, recorder, "image", visual.transformer, chosen["image"])
            _watch_tower(hooks, watch, recorder, "text", text.transformer, chosen["text"])
            hooks.enter_context(watch)
            image, sentence = clip.encode_image(images, normalize=True), clip.encode_text(texts, normalize=True)
            return (image[:, None] @ sentence[:, :, None])[:, :, 0]  # a matrix product, for which LRP has a rule

    sizes = {"image": len(visual.positional_embedding), "text": texts.shape[1]}
    ends = texts.argmax(1)
    of_text = torch.arange(sizes["text"], device=texts.device) <= ends[:, None]
    valid = torch.cat([of_text.new_ones(len(texts), sizes["image"]), of_text], 1)
    grid: tuple[int, int] = tuple(visual.grid_size)
    trace, logits = capture(model, cosine, lambda logits: logits[:, 0], needs, lambda: (sizes, valid, grid))
    readout = {"image": torch.zeros_like(ends), "text": sizes["image"] + ends}
    removable = valid.scatter(1, readout["text"][:, None], False)
    removable[:, [0, sizes["image"]]] = False  # class token, start token
    return Traced(
        trace=trace,
        logits=logits,
        removable=removable,
        readout=readout,
        grid=grid,
        boxes=grid_boxes(visual.grid_size, visual.patch_size, images.device),
        words=None if tokenizer is None else _words(texts, ends, sizes["image"], tokenizer),
    )


def _watch_tower(
    hooks: ExitStack, watch: Watch, recorder: Recorder, modality: str, transformer: Any, chosen: Sequence[int]
) -> None:
    """Watch a tower's blocks, and the embedded tokens that enter the first one (of an image: after ``ln_pre``)."""

    def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (recorder.inputs(modality, args[0], start=False),)

    hooks.enter_context(transformer.register_forward_pre_hook(enter))
    recorded, first = recorded_blocks(chosen, recorder.needs)
    for number, block in enumerate(transformer.resblocks):
        hooks.enter_context(replaced(block.attn, "forward", partial(_attend, block.attn)))
        if number in recorded:
            step = partial(Seen.record, recorder=recorder, query=modality, key=modality)
            start = partial(recorder.start, modality) if number == first else None
            watch_block(hooks, watch, f"{modality} block {number}", block, step, start)


def _words(texts: Tensor, ends: Tensor, first: int, tokenizer: Any) -> list[list[Word]]:
    """Return the words between the start and the end token of each text.

    ``first`` is the joint position of a text's first token.
    """
    found = []
    for ids, end in zip(texts.tolist(), ends.tolist(), strict=True):
        words: list[Word] = []
        open_word: list[int] = []
        for place in range(1, end):
            open_word.append(place)
            if tokenizer.decoder[ids[place]].endswith("</w>") or place + 1 == end:
                spelt = tokenizer.decode([ids[k] for k in open_word]).strip()
                words.append((spelt, [first + k for k in open_word]))
                open_word = []
        found.append(words)
    return found


def _attend(
    attn: Any, x: Tensor, _key: Tensor, _value: Tensor, attn_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Compute ``nn.MultiheadAttention`` explicitly for self-attention, x [B, n, D].

    PyTorch's module returns at most a copy of the probabilities, through which no gradient flows.
    """
    q, k, v = (
        part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
        for part in nn.functional.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
    )
    scores = q @ k.mT * q.shape[-1] ** -0.5
    attention = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
    return attn.out_proj((attention @ v).transpose(1, 2).flatten(2)), None


def checked_towers(model: Any) -> tuple[Any, Any]:
    """Return the image tower, and the module that holds the text tower: the model itself or its ``text``.

    Raises:
        TraceError: A tower has another architecture.
    """
    visual, text = checked_part(model, "visual"), getattr(model, "text", model)
    plain = hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None
    if not plain or getattr(visual, "pool_type", "tok") != "tok":
        raise TraceError(f"visual ({type(visual).__name__}) is not a vision transformer read at its class token")
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if getattr(text, "attn_mask", None) is None or getattr(text, "cls_emb", None) is not None or pool != "argmax":
        raise TraceError(f"the text tower of {type(text).__name__} is not a causal transformer read at its end token")
    for name, tower in {"image": visual, "text": text}.items():
        _check_attention(name, checked_part(tower, "transformer"))
    return visual, text


def _check_attention(name: str, transformer: Any) -> None:
    if getattr(transformer, "grad_checkpointing", False):
        raise TraceError(f"the {name} transformer checkpoints its gradients: call set_grad_checkpointing(False)")
    for number, block in enumerate(checked_part(transformer, "resblocks")):
        attn: Any = getattr(block, "attn", None)
        plain = type(attn) is nn.MultiheadAttention and attn.batch_first and attn.in_proj_weight is not None
        if not plain or attn.bias_k is not None or attn.add_zero_attn or not hasattr(block, "ls_1"):
            raise TraceError(
                f"{name} block {number} has attention {type(attn).__name__}: only PyTorch's plain, batch-first "
                "nn.MultiheadAttention can be traced"
            )
