"""CLIPScore and RefCLIPScore against a slow loop, their edge cases, and the embeddings against open_clip's own."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from clip_models import TEXTS, picture, random_model, register
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.metrics.clipscore import clip_score, clip_scores, embed_captions, embed_images, ref_clip_score

COUNTS = [1, 5, 2, 7, 1, 3, 4, 6]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_scores(image: Tensor, caption: Tensor, references: Tensor) -> tuple[float, float]:
    """Hessel et al., equations 1 and 2, for one caption."""
    fit = 2.5 * max(cosine(image.tolist(), caption.tolist()), 0)
    closest = max(0.0, *(cosine(caption.tolist(), reference.tolist()) for reference in references))
    return fit, 2 * fit * closest / (fit + closest) if fit + closest else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_both_scores_are_those_of_a_slow_loop(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    images, captions = torch.randn(2, len(COUNTS), 6, generator=draw, dtype=torch.float64)
    references = [torch.randn(count, 6, generator=draw, dtype=torch.float64) * 9 for count in COUNTS]
    expected = [slow_scores(*one) for one in zip(images, captions, references, strict=True)]
    assert any(fit == 0 for fit, _ in expected)
    torch.testing.assert_close(clip_score(images, captions).tolist(), [fit for fit, _ in expected])
    torch.testing.assert_close(ref_clip_score(images, captions, references).tolist(), [both for _, both in expected])


def test_known_angles() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    captions = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])
    assert clip_score(images, captions).tolist() == pytest.approx([2.5, 2.5 / math.sqrt(2), 0])
    references = [torch.tensor([[0.0, 3.0], [1.0, math.sqrt(3)]]), torch.eye(2), torch.eye(2)]
    closest = [0.5, 1 / math.sqrt(2)]
    fit = [2.5, 2.5 / math.sqrt(2)]
    expected = [2 / (1 / c + 1 / r) for c, r in zip(fit, closest, strict=True)]
    assert ref_clip_score(images, captions, references).tolist() == pytest.approx([*expected, 0])


def test_no_fit_and_no_likeness_is_zero_and_not_a_number() -> None:
    images, captions = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    away = [torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.1], [0.0, 1.0]])]
    assert ref_clip_score(images, captions, away).tolist() == [0, 0]
    assert clip_score(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [0]


@pytest.mark.parametrize("references", [[torch.ones(1, 2)], [torch.ones(1, 2), torch.ones(0, 2)]])
def test_a_caption_without_references_is_refused(references: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        ref_clip_score(torch.ones(2, 2), torch.ones(2, 2), references)


@pytest.fixture(scope="module")
def model_and_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[open_clip.CLIP, FrozenClip]:
    name = register(tmp_path_factory.mktemp("models"), "clipscore-tiny", {}, {})
    model = random_model(name)
    transform = open_clip.transform.image_transform(24, is_train=False)
    return model, FrozenClip(model, transform, open_clip.get_tokenizer(name), name)


def test_embeddings_are_open_clips_own(model_and_encoder: tuple[open_clip.CLIP, FrozenClip]) -> None:
    """A caption that is too long is cut off by both, its end token kept."""
    model, encoder = model_and_encoder
    captions = [*TEXTS, "a very long caption of far more words than the context of this small model can take in"]
    prompted = open_clip.get_tokenizer("clipscore-tiny")([f"A photo depicts {caption}" for caption in captions])
    expected = model.encode_text(prompted)
    torch.testing.assert_close(embed_captions(encoder, captions), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embed_captions(encoder, captions, batch_size=4), expected, atol=1e-4, rtol=1e-4)
    images = [picture(30, 24), picture(24, 50), picture(24, 24)]
    expected = model.encode_image(encoder.pixels(images))
    torch.testing.assert_close(embed_images(encoder, images, batch_size=2), expected, atol=1e-4, rtol=1e-4)


def test_scores_with_a_model_put_each_reference_to_its_caption(
    model_and_encoder: tuple[open_clip.CLIP, FrozenClip],
) -> None:
    _, encoder = model_and_encoder
    images = [picture(24, 24), picture(24, 24), picture(24, 24)]
    captions, references = TEXTS[:3], [["yes", "no"], TEXTS[:1], ["a cat", "a dog", "a bird"]]
    fit, both = clip_scores(encoder, images, captions, references)
    pictures, texts = embed_images(encoder, images), embed_captions(encoder, captions)
    for i, group in enumerate(references):
        slow = slow_scores(pictures[i].double(), texts[i].double(), embed_captions(encoder, group).double())
        assert (fit[i].item(), both[i].item()) == pytest.approx(slow, abs=1e-5)


def test_a_caption_among_its_references_is_fully_alike(
    model_and_encoder: tuple[open_clip.CLIP, FrozenClip],
) -> None:
    _, encoder = model_and_encoder
    fit, both = clip_scores(encoder, [picture(24, 24)], ["a red circle"], [["a dog", "a red circle"]])
    assert both.item() == pytest.approx(2 * fit.item() / (fit.item() + 1), abs=1e-5)
