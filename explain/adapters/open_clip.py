"""Traces of an open_clip model by itself: two streams that meet only in the similarity of image and text."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.watching import check_evaluation, checked_part, replaced, watch_block
from explain.capture.recording import Recorder, record
from explain.trace import AttentionTrace, TraceError


def trace_open_clip(model: nn.Module, images: Tensor, texts: Tensor) -> AttentionTrace:
    """The trace of pairs of an image and a text, for a plain CLIP model, frozen or not.

    y is the cosine of each image with its text, not scaled by the model's temperature (which would scale all gradients
    alike). The joint order is the class token and the patches, then the text as it was padded; valid is the text from
    its start to its end token. No step crosses, so R stays block-diagonal, and a similarity has two readout rows: the
    image's is the class token's, 0, and the text's is the end token's, ``n_v + texts.argmax(1)``.

    Args:
        model: In evaluation mode, without gradient checkpointing.
        images: Pixels [B, 3, H, W].
        texts: Token ids [B, n_t] as open_clip's tokenizer gives them: the end token has the highest id.

    Raises:
        TraceError: the towers are not a vision transformer read at its class token and a causal text transformer read
            at its end token, their attention is not PyTorch's own, the model is in training mode, or images and texts
            are not as many.
    """
    if len(images) != len(texts):
        raise TraceError(f"{len(images)} images and {len(texts)} texts: each image needs its text")
    check_evaluation(model)
    clip: Any = model
    visual, text = _checked_towers(clip)
    with record() as recorder, ExitStack() as hooks:
        _watch_tower(hooks, recorder, "image", visual.ln_pre, visual.transformer)
        _watch_tower(hooks, recorder, "text", text.transformer, text.transformer)
        cosine = (clip.encode_image(images, normalize=True) * clip.encode_text(texts, normalize=True)).sum(1)
        sizes = {"image": len(visual.positional_embedding), "text": texts.shape[1]}
        of_text = torch.arange(sizes["text"], device=texts.device) <= texts.argmax(1, keepdim=True)
        valid = torch.cat([of_text.new_ones(len(texts), sizes["image"]), of_text], 1)
        return recorder.trace(cosine, sizes, valid)


def _watch_tower(hooks: ExitStack, recorder: Recorder, modality: str, start: nn.Module, transformer: Any) -> None:
    """``start`` is the module that the embedded tokens enter."""
    hooks.enter_context(start.register_forward_pre_hook(lambda _, args: (recorder.inputs(modality, args[0]),)))
    for number, block in enumerate(transformer.resblocks):
        shown = nn.Identity()
        hooks.enter_context(replaced(block.attn, "forward", partial(_attend, block.attn, shown)))
        step = partial(recorder.step, query=modality, key=modality)
        watch_block(hooks, f"{modality} block {number}", block, shown, block.ls_1, step)


def _attend(
    attn: Any, shown: nn.Module, x: Tensor, _key: Tensor, _value: Tensor, attn_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    """``nn.MultiheadAttention`` written out for self-attention, x [B, n, D]; its probabilities pass through ``shown``.

    (PyTorch's own returns at best a copy of them, through which no gradient flows.)
    """
    q, k, v = (
        part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
        for part in nn.functional.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
    )
    scores = q @ k.mT * q.shape[-1] ** -0.5
    attention = shown((scores if attn_mask is None else scores + attn_mask).softmax(-1))
    return attn.out_proj((attention @ v).transpose(1, 2).flatten(2)), None


def _checked_towers(model: Any) -> tuple[Any, Any]:
    """The image tower, and what holds the text tower: the model itself, or its ``text``."""
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
