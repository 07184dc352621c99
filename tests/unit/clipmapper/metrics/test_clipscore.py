"""Tests of CLIPScore and RefCLIPScore against a slow reference, and of caption embeddings against open_clip."""

from __future__ import annotations

import math
from pathlib import Path

import open_clip
import pytest
import torch
from clip_scores import slow_scores
from models import TEXTS, random_clip, register
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.metrics.clipscore import clip_score, embed_captions, ref_clip_score

COUNTS = [1, 5, 2, 7, 1, 3, 4, 6]


@pytest.mark.parametrize("seed", range(5))
def test_both_scores_equal_the_slow_reference(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    images, captions = torch.randn(2, len(COUNTS), 6, generator=draw, dtype=torch.float64)
    references = [torch.randn(count, 6, generator=draw, dtype=torch.float64) * 9 for count in COUNTS]
    expected = [slow_scores(*(part.tolist() for part in one)) for one in zip(images, captions, references, strict=True)]
    assert any(fit == 0 for fit, _ in expected)
    torch.testing.assert_close(clip_score(images, captions).tolist(), [fit for fit, _ in expected])
    torch.testing.assert_close(ref_clip_score(images, captions, references).tolist(), [both for _, both in expected])


def test_scores_of_known_angles() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    captions = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])
    assert clip_score(images, captions).tolist() == pytest.approx([2.5, 2.5 / math.sqrt(2), 0])
    references = [torch.tensor([[0.0, 3.0], [1.0, math.sqrt(3)]]), torch.eye(2), torch.eye(2)]
    closest = [0.5, 1 / math.sqrt(2)]
    fit = [2.5, 2.5 / math.sqrt(2)]
    expected = [2 / (1 / c + 1 / r) for c, r in zip(fit, closest, strict=True)]
    assert ref_clip_score(images, captions, references).tolist() == pytest.approx([*expected, 0])


def test_scores_without_any_similarity_are_zero_and_not_nan() -> None:
    images, captions = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    away = [torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.1], [0.0, 1.0]])]
    assert ref_clip_score(images, captions, away).tolist() == [0, 0]
    assert clip_score(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [0]


@pytest.mark.parametrize("references", [[torch.ones(1, 2)], [torch.ones(1, 2), torch.ones(0, 2)]])
def test_a_caption_without_references_is_refused(references: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        ref_clip_score(torch.ones(2, 2), torch.ones(2, 2), references)


def test_a_caption_among_its_references_has_reference_cosine_one() -> None:
    image, caption = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[2.0, 1.0, 0.0]])
    fit = clip_score(image, caption).item()
    both = ref_clip_score(image, caption, [torch.cat([-image, 3 * caption])])
    assert both.item() == pytest.approx(2 * fit / (fit + 1))


def test_embeddings_of_captions_equal_open_clips(tmp_path: Path) -> None:
    """A caption that is too long is cut off by both and keeps its end token."""
    name = register(tmp_path, "clipscore-tiny", {}, {})
    model = random_clip(name)
    tokenizer = open_clip.get_tokenizer(name)
    encoder = FrozenClip(model, None, tokenizer, name)
    captions = [*TEXTS, "a very long caption of far more words than the context of this small model can take in"]
    expected = model.encode_text(tokenizer([f"A photo depicts {caption}" for caption in captions]))
    torch.testing.assert_close(embed_captions(encoder, captions), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embed_captions(encoder, captions, batch_size=4), expected, atol=1e-4, rtol=1e-4)
