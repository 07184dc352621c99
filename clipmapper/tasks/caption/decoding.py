"""Greedy decoding: the most likely token at every step, until the end token or the greatest length.

CLIP's text encoder and the mapper keep the keys and values of the image and of earlier tokens, so that each step
computes only one token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipmapper.console import progress
from clipmapper.encoder.released import move
from clipmapper.mapper.incremental import start_decoding
from clipmapper.nn import KeyValues, Tokens
from clipmapper.process.together import mine, shared_out
from clipmapper.tasks.caption.data import CaptionedImages
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.training.batches import in_order


@torch.inference_mode()
def greedy(model: CLIPMapperCaption, image: Tokens, max_length: int) -> list[list[int]]:
    """Generate a caption for each image.

    Args:
        model: The model.
        image: The encoder's image tokens, [B, N, D], with the model's device and dtype.
        max_length: Greatest number of tokens of a caption.

    Returns:
        Token ids of each caption, without start and end token.
    """
    vocabulary, text = model.vocabulary, model.encoder.text
    of_class = torch.tensor(vocabulary.ids, device=image.features.device)
    caches = [KeyValues(max_length) for _ in text.blocks]
    mapper = start_decoding(model.trained.mapper, image, max_length)
    ids = torch.full((len(image.features),), vocabulary.start, device=image.features.device)
    going = torch.ones_like(ids, dtype=torch.bool)
    generated: list[Tensor] = []
    for place in range(max_length):
        word = Tokens(
            text.next(ids, place, caches).to(image.features.dtype),
            going.new_ones(len(ids), 1),
            torch.full_like(ids, place)[:, None],
        )
        ids = of_class[model.trained.head(mapper.next(word)).argmax(1)]
        generated.append(ids)
        going &= ids != vocabulary.end
        if not going.any():
            break
    return [_cut_at_end(row, vocabulary.end) for row in torch.stack(generated, 1).tolist()]


def _cut_at_end(ids: list[int], end: int) -> list[int]:
    """Return the tokens before the end token, after which decoding continues until the whole batch has ended."""
    return ids[: ids.index(end)] if end in ids else ids


def caption_images(
    model: CLIPMapperCaption, images: CaptionedImages, rows: list[int], max_length: int, batch_size: int = 64
) -> list[str]:
    """Return the text of a greedy caption for each of these rows of a split.

    The processes of a distributed run share the batches out, and all get all captions.
    """
    weight = next(model.trained.parameters())
    move(model.encoder, weight.device)
    model.eval()
    batches = in_order(len(rows), batch_size)
    with progress(sum(map(len, mine(batches))), "captioning", "images") as advance:

        def captioned(places: list[int]) -> list[str]:
            image = images.shown([rows[place] for place in places]).to(weight.device, weight.dtype)
            found = [model.vocabulary.text(ids) for ids in greedy(model, image, max_length)]
            advance(len(places))
            return found

        return [caption for found in shared_out(batches, captioned) for caption in found]
