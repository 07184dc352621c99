"""Do explanations depend on what the model has learnt? Randomise it, layer by layer, and see whether they change.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps": the cascading randomisation of the model's parameters, from the
answer down to the input, and the rank correlation of each explanation with that of the untouched model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """The model's layers in the order in which they are randomised, together all weights that bear on the logits.

    The head, the mapper's layers from last to first, its projections with the learnt read-out token and positions, the
    blocks of both encoders from last to first (the last ones together), and their input embeddings.
    """
    mapper = model.trained.mapper
    found: dict[str, list[Part]] = {"head": [model.trained.head]}
    found |= _numbered("mapper", _mapper_layers(mapper))
    found["projections"] = [mapper.project_image, mapper.project_text, mapper.read]
    vision, text = model.encoder.vision, model.encoder.text
    found |= _numbered("encoder", _encoder_layers(vision.blocks, text.blocks))
    last = next(name for name in found if name.startswith("encoder"))
    found[last] += [vision.visual.ln_post, text.text.ln_final]
    found["embeddings"] = [vision.visual.class_embedding, vision.visual.positional_embedding]
    found["embeddings"] += [vision.visual.conv1, vision.visual.ln_pre]
    found["embeddings"] += [text.text.token_embedding, text.text.positional_embedding]
    return found


def _numbered(name: str, layers: Sequence[list[Part]]) -> dict[str, list[Part]]:
    """Last layer first; the first layer is number 1."""
    return {f"{name} {number + 1}": list(layers[number]) for number in reversed(range(len(layers)))}


def _mapper_layers(mapper: Mapper) -> list[list[Part]]:
    pairs: Iterable[tuple[nn.Module, nn.Module]]
    if isinstance(mapper, DualStream):
        pairs = zip(mapper.image_layers, mapper.text_layers, strict=True)
    else:
        pairs = zip(mapper.attentions, mapper.feed_forwards, strict=True)
    return [list(pair) for pair in pairs]


def _encoder_layers(vision: Sequence[nn.Module], text: Sequence[nn.Module]) -> list[list[Part]]:
    """The blocks of both, the last ones side by side: the shorter encoder has no block at the first numbers."""
    depth = max(len(vision), len(text))
    return [
        [blocks[number - depth + len(blocks)] for blocks in (vision, text) if number >= depth - len(blocks)]
        for number in range(depth)
    ]


@torch.no_grad()
def redraw(parts: Sequence[Part], generator: torch.Generator) -> None:
    """Draws weights anew, in place: every tensor from a normal with mean 0 and its own standard deviation.

    Layer norms go back to weight 1 and bias 0. ``generator`` is the CPU's: devices don't matter.
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
                _draw(parameter, generator)


def _draw(parameter: Tensor, generator: torch.Generator) -> None:
    spread = parameter.float().std(correction=0).cpu()
    parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def rank_correlation(original: NDArray[np.floating], other: NDArray[np.floating], eligible: NDArray[np.bool_]) -> Array:
    """Spearman's correlation of each sample's scores [B, n] over its eligible tokens (bool [B, n]), [B], from −1 to 1.

    Equal scores share the mean of their ranks. Where the original's scores are all equal there is no order that could
    be kept: NaN. Where only the other's are, the order is lost: 0.

    Raises: as ``perturbation.measures.faithfulness.spearman``.
    """
    pairs = zip(original, eligible, strict=True)
    varies = np.array([np.ptp(scores[keep]) > 0 if keep.any() else False for scores, keep in pairs])
    found = spearman(original, other, eligible)
    return np.where(varies & np.isnan(found), 0.0, found)
