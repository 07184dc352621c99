"""Cascading randomisation of a model, and the rank correlation of explanations (docs/method.md, Randomisation).

The test shows whether explanations depend on what the model has learnt (Adebayo et al. 2018, "Sanity Checks for
Saliency Maps"). The parameters are randomised layer by layer, from the output down to the input, and each explanation
is compared with that of the original model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmapper.mapper.build import Mapper
from clipmapper.mapper.dual_stream import DualStream
from perturbation.arrays import Array
from perturbation.measures.faithfulness import spearman

Part = nn.Module | nn.Parameter


def layers_from_the_top(model: Any) -> dict[str, list[Part]]:
    """Return the model's layers by name, in the order in which they are randomised.

    The order is: the head, the mapper's layers from last to first, its projections with the learnt read-out token and
    positions, the blocks of both encoders from last to first (the last blocks of both together), and the input
    embeddings of both encoders. Together these are all weights that affect the logits.
    """
    mapper = model.trained.mapper
    found: dict[str, list[Part]] = {"head": [model.trained.head]}
    found |= _numbered("mapper", _mapper_layers(mapper))
    found["projections"] = [mapper.project_image, mapper.project_text, mapper.read]
    vision, text = model.encoder.vision, model.encoder.text
    found |= _numbered("encoder", _encoder_layers(vision.blocks, text.blocks))
    last = next(name for name in found if name.startswith("encoder"))
    found[last] += [vision.final_norm, text.text.ln_final]
    found["embeddings"] = [*vision.inputs]
    found["embeddings"] += [text.text.token_embedding, text.text.positional_embedding]
    return found


def registered_layers(model: nn.Module) -> dict[str, list[Part]]:
    """Return the layers of any model by name, from the last that it registered to the first.

    A layer is an entry of an outermost ``ModuleList`` or ``Sequential``, or all weights that are registered between two
    such entries; its name is that of the last of them. A part whose weights are all registered again later, such as
    word embeddings that the head shares, belongs to the last of these layers alone.
    """
    found: dict[str, list[Part]] = {}
    between = ""
    placed: set[nn.Parameter] = set()
    for name, part, listed in reversed(list(_registered("", model))):
        own = {part} if isinstance(part, nn.Parameter) else set(part.parameters())
        if own <= placed:
            continue
        placed |= own
        if listed or not between:
            found[name] = []
        between = "" if listed else between or name
        found[between or name].append(part)
    return found


def _registered(path: str, module: nn.Module) -> Iterator[tuple[str, Part, bool]]:
    """Yield the parts of a module in the order of their registration: name, part, whether it is a list's entry."""
    for name, parameter in module.named_parameters(prefix=path, recurse=False):
        yield name, parameter, False
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleList | nn.Sequential):
            entries = [(f"{inner}.{k}", entry) for k, entry in child.named_children()]
            yield from ((key, entry, True) for key, entry in entries if any(True for _ in entry.parameters()))
        elif any(True for _ in child.children()):
            yield from _registered(inner, child)
        elif any(True for _ in child.parameters()):
            yield inner, child, False


def _numbered(name: str, layers: Sequence[list[Part]]) -> dict[str, list[Part]]:
    """Return the layers by ``{name} {number}``, the last layer first; the first layer has number 1."""
    return {f"{name} {number + 1}": list(layers[number]) for number in reversed(range(len(layers)))}


def _mapper_layers(mapper: Mapper) -> list[list[Part]]:
    pairs: Iterable[tuple[nn.Module, nn.Module]]
    if isinstance(mapper, DualStream):
        pairs = zip(mapper.image_layers, mapper.text_layers, strict=True)
    else:
        pairs = zip(mapper.attentions, mapper.feed_forwards, strict=True)
    return [list(pair) for pair in pairs]


def _encoder_layers(vision: Sequence[nn.Module], text: Sequence[nn.Module]) -> list[list[Part]]:
    """Return the blocks of both encoders by depth, aligned at the last block.

    If one encoder has fewer blocks, it has none in the first layers.
    """
    depth = max(len(vision), len(text))
    return [
        [blocks[number - depth + len(blocks)] for blocks in (vision, text) if number >= depth - len(blocks)]
        for number in range(depth)
    ]


@torch.no_grad()
def redraw(parts: Sequence[Part], generator: torch.Generator) -> None:
    """Replace weights in place by random draws from a normal distribution with mean 0.

    Every tensor keeps its standard deviation, which is 0 if all values are equal. Layer norms are reset to weight 1
    and bias 0, and parameters of other norms become their mean. ``generator`` is a CPU generator, so the draws do not
    depend on the device.
    """
    for part in parts:
        if isinstance(part, nn.Parameter):
            _draw(part, generator)
            continue
        for module in part.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
                continue
            for parameter in module.parameters(recurse=False):
                if "Norm" in type(module).__name__:
                    parameter.fill_(parameter.mean())
                else:
                    _draw(parameter, generator)


def _draw(parameter: Tensor, generator: torch.Generator) -> None:
    spread = parameter.float().std(correction=0).cpu()
    parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def rank_correlation(original: NDArray[np.floating], other: NDArray[np.floating], eligible: NDArray[np.bool_]) -> Array:
    """Return Spearman's correlation of the original and the other scores of every sample, [B], from −1 to 1.

    Equal scores share the mean of their ranks. If all original scores of a sample are equal, there is no order to keep,
    and the value is NaN. If only the other scores are all equal, the order is lost, and the value is 0.

    Args:
        original: [B, n], the scores from the original model.
        other: [B, n], the scores from the randomised model.
        eligible: bool [B, n], the tokens that count.

    Raises:
        UserError: An original score of an eligible token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit, or another score of an eligible token is not finite.
    """
    pairs = zip(original, eligible, strict=True)
    varies = np.array([np.ptp(scores[keep]) > 0 if keep.any() else False for scores, keep in pairs])
    found = spearman(original, other, eligible)
    return np.where(varies & np.isnan(found), 0.0, found)
