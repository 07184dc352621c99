"""Freeing the weights of an encoder whose features are all stored, until one has to be computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.process.freed import return_freed

_SMALL = 1 << 17  # numbers of a tensor that is kept


def release(encoder: FrozenClip) -> None:
    """Free all large weights but the projections to the shared space, with which a mapper may start.

    Sizes, the tokenizer and the fingerprint stay.
    """
    encoder.fingerprint()
    towers = encoder.vision, encoder.text
    needed = [tower.shared_projection for tower in towers] + [
        next(tower.parameters()) for tower in towers
    ]  # the device
    kept = {tensor.untyped_storage().data_ptr() for tensor in needed}

    def freed(tensor: Tensor) -> Tensor:
        small = tensor.numel() < _SMALL or tensor.untyped_storage().data_ptr() in kept
        return tensor if small else tensor.to("meta")

    encoder._apply(freed)
    return_freed()


def release_images(encoder: FrozenClip) -> None:
    """Free the blocks of the image encoder; what pools the tokens of images and what encodes texts stays."""
    encoder.fingerprint()
    for block in encoder.vision.blocks:
        block.to("meta")
    return_freed()


def move(encoder: FrozenClip, device: torch.device) -> None:
    """Move the weights that were not freed to a device."""
    encoder._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def restore(encoder: FrozenClip, config: EncoderConfig) -> None:
    """Load the weights of an encoder again, if they were freed, on the device of those that were not.

    Raises:
        UserError: They cannot be loaded (see :func:`~clipmapper.encoder.load.load_encoder`).
    """
    if encoder.released:
        whole = load_encoder(config).to(encoder.text.shared_projection.device)
        encoder.vision, encoder.text = whole.vision, whole.text
