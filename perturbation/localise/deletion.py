"""The deletion oracle: how much each token alone contributes to the output that is explained.

The score of a token is the fall of the explained output's probability when this token alone is removed (docs/method.md,
Localisation). The tables show it next to chance, as the agreement of the model itself with the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipmapper.tasks.caption.explaining import average_sub_words
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import split_words
from clipmapper.tasks.caption.trained import CaptionedBatch
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.arrays import Array, Mask
from perturbation.measures.faithfulness import single_effects, single_removals
from perturbation.removal.caption_engine import CaptionEngine
from perturbation.removal.engine import VQAReader
from perturbation.removal.reader import Modality, read_together

DELETION = "deletion"


def answer_effects(
    reader: VQAReader, batch: QuestionBatch, answers: Tensor, removable: Mapping[Modality, Mask]
) -> dict[Modality, Array]:
    """Return the effect of removing each token alone on the probability of an answer, [B, n] by modality.

    Args:
        reader: The model.
        batch: B questions.
        answers: The explained answers, int [B].
        removable: bool [B, n] by modality; the effect of the other tokens is 0.
    """
    samples = reader.samples(batch)
    outputs = read_together(lambda subsets: reader.read(samples, subsets, answers), single_removals(removable))
    return {modality: single_effects(outputs, modality) for modality in removable}


def word_effects(model: CLIPMapperCaption, batch: CaptionedBatch, batch_size: int) -> Array:
    """Return the effect of removing each patch alone on the probability of each word of the captions, [W, P].

    A word's effect is the mean over its sub-words, as its explanation is. All words of a caption are read together.

    Args:
        model: The model.
        batch: Images with captions that have W words in all.
        batch_size: Number of subsets that are read at once.
    """
    patches = model.encoder.vision.patches
    without = ~torch.eye(patches, dtype=torch.bool, device=batch.pixels.device)
    kept = torch.cat([without.new_ones(1, patches), without]).expand(len(batch.captions), -1, -1)
    found = CaptionEngine(model, batch_size, 0).token_probabilities(batch.pixels, kept, batch.captions).double()
    effects = (found[:, :1] - found[:, 1:]).transpose(1, 2)  # [B, T, P]
    tokens = torch.cat([effects[b, : len(caption)] for b, caption in enumerate(batch.captions)])
    words = [split_words(caption, model.encoder.tokenizer) for caption in batch.captions]
    return average_sub_words(tokens, words).cpu().numpy()
