"""The start of the model from CLIP, and the projector that reads standardised tokens."""

from __future__ import annotations

import llava_parts as parts
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from clipmapper.llava.model import Standard, fold, start_from_clip

pytest.importorskip("transformers")


def test_a_folded_layer_reads_the_tokens_themselves() -> None:
    patches = parts.pictures().patches.double().flatten(0, 1)
    standard = Standard.of(patches)
    linear = torch.nn.Linear(patches.shape[1], 5).double()
    expected = linear((patches - patches.mean(0)) / patches.std(0))
    fold(linear, standard)
    torch.testing.assert_close(linear(patches), expected)


def test_projected_patches_begin_near_clips_own_embeddings() -> None:
    """They are compared with the image encoder's output, normalised as CLIP does, on scenes that did not set them."""
    encoder, clip, _ = parts.clip()
    model, words = parts.model(), parts.words()
    fitted, others = (parts.pictures(split).patches.float().flatten(0, 1) for split in ("train", "val"))
    standard = Standard.of(fitted)
    start_from_clip(model, encoder, words, fitted, standard)
    with torch.no_grad():
        projected = model.model.multi_modal_projector(standard.apply(others))
        expected = normalize(clip.visual_projection(clip.vision_model.post_layernorm(others)), dim=-1)
    assert float(cosine_similarity(projected, expected).mean()) > 0.98
    assert float(projected.norm(dim=-1).mean()) == pytest.approx(1, abs=0.05)


def test_words_begin_as_clips_text_embeddings() -> None:
    encoder, clip, _ = parts.clip()
    model, words = parts.model(), parts.words()
    patches = parts.pictures().patches.float().flatten(0, 1)
    start_from_clip(model, encoder, words, patches, Standard.of(patches))
    text = encoder.tokenize(["circle"])
    with torch.no_grad():
        expected = normalize(clip.get_text_features(text.ids).pooler_output[0], dim=-1)
    torch.testing.assert_close(model.get_input_embeddings().weight[words["circle"]].detach(), expected)


def test_queries_begin_as_keys() -> None:
    model = parts.model()
    patches = parts.pictures().patches.float().flatten(0, 1)
    start_from_clip(model, parts.clip()[0], parts.words(), patches, Standard.of(patches))
    for layer in model.model.language_model.layers:
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        assert torch.equal(query, key)
        torch.testing.assert_close(query @ query.T, torch.eye(len(query)), atol=1e-5, rtol=0)
