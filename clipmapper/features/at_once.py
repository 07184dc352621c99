"""Number of images that are encoded together, by the device."""

from __future__ import annotations

import torch

from clipmapper.encoder.towers import VisionTower

ON_CPU = 8
_MOST = 512
_NUMBERS = 16  # float32 numbers for each channel of each token of an image: a block's queries, keys, hidden layer, …
_SHARE = 4  # of the free memory of a GPU, a quarter is used


def images_at_once(given: int | None, vision: VisionTower, device: torch.device) -> int:
    """Return how many images are encoded together.

    Args:
        given: What the config says; None for as many as fit into a quarter of a GPU's free memory, from 8 to 512, or
            for 8 on other devices.
        vision: The image encoder.
        device: Its device.
    """
    if given is not None:
        return given
    if device.type != "cuda":
        return ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    each = vision.token_count * vision.width * 4 * _NUMBERS
    fitting = free // _SHARE // each
    return max(ON_CPU, min(_MOST, 1 << max(fitting, 1).bit_length() - 1))
