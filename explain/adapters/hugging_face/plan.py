"""What the adapter must know of a model and a batch before it runs; each family of models makes it in its own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explain.capture.recording import Recorder
from explain.targets import Answer
from explain.trace import TokenMap, TraceError
from explain.traced import Word

Hook = Callable[[ExitStack, Recorder, Mapping[str, Sequence[int]]], None]


@dataclass(frozen=True, eq=False)
class Merge:
    """A token map before a stack's first block."""

    step: TokenMap
    #: Module whose first input are the old tokens, and their places in it, if importance may decide how they merge.
    module: nn.Module | None = None
    places: Tensor | None = None
    tokens: Callable[[Tensor], Tensor] | None = None  #: returns the tokens [..., D] in that input; None: it is them


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack of blocks with the same tokens, such as a vision tower."""

    name: str  #: its name in ``layers``
    blocks: Sequence[tuple[str, nn.Module]]  #: the blocks that the output depends on, with their names
    query: str  #: modality of the tokens
    places: Tensor  #: their places (``places``), [B, n]
    inputs: Mapping[str, Tensor] = field(
        default_factory=dict
    )  #: places of input tokens in the first block, by modality
    merges: Sequence[Merge] = ()  #: token maps before the first block
    skipped: frozenset[int] = frozenset()  #: blocks without attention maps, such as linear attention
    cross: Cross | None = None  #: the blocks that attend to another modality


@dataclass(frozen=True, eq=False)
class Cross:
    """The cross-attentions of a stack, such as those of queries that read an image.

    The stack's tokens begin as constants, and a token map hands what they become on to the next stack.
    """

    blocks: frozenset[int]  #: which blocks of the stack they are
    key: str  #: modality that they attend to
    places: Tensor  #: places of the queries in these blocks, [B, n]
    keys: Tensor  #: places of the keys, [B, n_key]


@dataclass(frozen=True, eq=False)
class Plan:
    """A model and a batch: how to run it, and the meaning of its tokens (see :class:`~explain.traced.Traced`)."""

    sizes: Mapping[str, int]
    valid: Tensor  #: bool [B, N], or [B, T, N] if each token of an answer sees other tokens
    stacks: Sequence[Stack]  #: in the order in which the model runs them
    run: Callable[[], Tensor]  #: runs the model and returns the logits [B, C], or [B, T, C] for the tokens of an answer
    removable: Tensor
    readout: Mapping[str, Tensor]
    grid: tuple[int, int] | None = None
    boxes: Tensor | None = None
    images: Tensor | None = None
    words: Sequence[Sequence[Word]] | None = None
    hook: Hook | None = None  #: further hooks of the family


def layers_of(model: nn.Module, part: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the longest list of layers in a part of a model, with their names in the model.

    Raises:
        TraceError: The part has no list of ``transformers``' layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    names = {id(module): name for name, module in model.named_modules()}
    lists = [
        list(module)
        for module in part.modules()
        if isinstance(module, nn.ModuleList) and all(isinstance(m, GradientCheckpointingLayer) for m in module)
    ]
    if not any(lists):
        raise TraceError(f"{type(part).__name__} has no list of layers: the adapter does not support such a model")
    return [(names[id(layer)], layer) for layer in max(lists, key=len)]


def crossing_blocks(model: nn.Module, part: nn.Module) -> tuple[list[tuple[str, nn.Module]], frozenset[int]]:
    """Return the attentions of BERT-like layers, self- and cross-attention in order, and which are cross-attentions."""
    blocks: list[tuple[str, nn.Module]] = []
    crossed = set()
    for name, layer in layers_of(model, part):
        blocks.append((f"{name}.attention", layer.get_submodule("attention")))
        if hasattr(layer, "crossattention"):
            crossed.add(len(blocks))
            blocks.append((f"{name}.crossattention", layer.get_submodule("crossattention")))
    return blocks, frozenset(crossed)


def prefix_tokens(tower: nn.Module) -> int:
    """Return the number of class and register tokens before the patches of a vision tower."""
    count = 0
    for name, parameter in tower.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if last in ("class_embedding", "cls_token", "register_tokens", "distillation_token"):
            count += parameter.shape[1] if parameter.ndim == 3 else 1
    return count


def patch_size(config: Any) -> tuple[int, int]:
    """Return the height and width of a patch in pixels."""
    size = config.patch_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def needed(inputs: Mapping[str, Any], name: str, why: str) -> Tensor:
    """Return one of the model's inputs.

    Raises:
        TraceError: It is missing.
    """
    value = inputs.get(name)
    if not isinstance(value, Tensor):
        raise TraceError(f"inputs have no {name}: {why}")
    return value


def check_no_answer(model: nn.Module, answer: Answer | None) -> None:
    """Raise :class:`TraceError` if an answer is to be explained, which a model without a decoder cannot give."""
    if answer is not None:
        raise TraceError(f"{type(model).__name__} generates no text: an answer needs a language model")


def check_pairs(pixels: Tensor, ids: Tensor) -> None:
    """Raise :class:`TraceError` if the numbers of images and texts differ."""
    if len(pixels) != len(ids):
        raise TraceError(f"{len(pixels)} images and {len(ids)} texts: each image needs its text")


def whole_batch(batch: int, tokens: int, device: torch.device) -> Tensor:
    """Return the places of all tokens of a tensor [B, n, D], [B, n]."""
    return torch.arange(batch * tokens, device=device).view(batch, tokens)
