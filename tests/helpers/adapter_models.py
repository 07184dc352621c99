"""Tiny random models for each adapter, with padded batches."""

import torch
from adapter_checks import normal, randomise

VISION = {"image_size": 24, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8, "ls_init_value": 0.5}
TEXT = {"context_length": 8, "vocab_size": 30, "width": 12, "heads": 2, "layers": 2}
TEXTS = torch.tensor([[28, 5, 29, 0, 0, 0, 0, 0], [28, 5, 9, 4, 29, 0, 0, 0]])


def tiny_clip(dtype=torch.float64, kind="CLIP", vision=None, text=None):
    import open_clip

    return randomise(getattr(open_clip, kind)(10, VISION | (vision or {}), TEXT | (text or {}))).to(dtype)


def images(dtype=torch.float64):
    return normal(2, 3, 24, 24, dtype=dtype)


def tiny_vilt(dtype=torch.float64):
    import transformers

    config = transformers.ViltConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        image_size=24,
        patch_size=8,
        num_labels=4,
    )
    return randomise(transformers.ViltForQuestionAnswering(config)).to(dtype)


def vilt_inputs(dtype=torch.float64):
    """Return an image of full size with a short question, and an image of 3 × 2 patches with a long one."""
    ids = torch.tensor([[2, 7, 3, 0, 0], [2, 9, 8, 7, 3]])
    pixels, pixel_mask = normal(2, 3, 24, 24, dtype=dtype), torch.ones(2, 24, 24, dtype=torch.long)
    pixels[1, :, :, 16:], pixel_mask[1, :, 16:] = 0, 0
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "pixel_values": pixels,
        "pixel_mask": pixel_mask,
    }


def tiny_lxmert(dtype=torch.float64):
    import transformers

    config = transformers.LxmertConfig(
        vocab_size=30,
        hidden_size=16,
        num_attention_heads=2,
        num_qa_labels=4,
        intermediate_size=24,
        max_position_embeddings=8,
        l_layers=2,
        r_layers=1,
        x_layers=2,
        visual_feat_dim=6,
    )
    return randomise(transformers.LxmertForQuestionAnswering(config)).to(dtype)


def lxmert_inputs(dtype=torch.float64):
    """Return as many tokens as objects, so that the modalities cannot be distinguished by their shapes."""
    ids = torch.tensor([[2, 7, 3, 0], [2, 9, 8, 3]])
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "visual_feats": normal(2, 4, 6, seed=1, dtype=dtype),
        "visual_pos": normal(2, 4, 4, seed=2, dtype=dtype),
        "visual_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
