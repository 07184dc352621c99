"""Small models of open_clip's other families as folders, with random weights: SigLIP, EVA, PE and average pooling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
import transformers
from models import TEXT, VISION
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn

SHARED = 32  # width of the towers and of the shared space: SigLIP has no projection of images
_SIZES: dict[str, Any] = {"img_size": 24, "patch_size": 8, "embed_dim": SHARED, "depth": 2, "num_heads": 2}
_ROPE: dict[str, Any] = {"use_rot_pos_emb": True, "ref_feat_shape": (2, 2)}


@timm.models.register_model
def tiny_siglip(pretrained: bool = False, **options: Any) -> nn.Module:
    return VisionTransformer(**_SIZES, class_token=False, **_known(options))


@timm.models.register_model
def tiny_registers(pretrained: bool = False, **options: Any) -> nn.Module:
    return VisionTransformer(**_SIZES, reg_tokens=3, init_values=0.5, qk_norm=True, **_known(options))


@timm.models.register_model
def tiny_eva(pretrained: bool = False, **options: Any) -> nn.Module:
    parts = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
    return Eva(**_SIZES, **_ROPE, **parts, init_values=0.5, **_known(options))


@timm.models.register_model
def tiny_pe(pretrained: bool = False, **options: Any) -> nn.Module:
    parts = {"attn_type": "rope", "use_pre_transformer_norm": True, "rope_grid_offset": 1.0, "rope_grid_indexing": "xy"}
    return Eva(**_SIZES, **_ROPE, **parts, init_values=0.1, **_known(options))


def _known(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in ("num_classes", "global_pool")}


SIGLIP_TEXT = {
    "context_length": 10,
    "vocab_size": 64,
    "width": SHARED,
    "heads": 2,
    "layers": 2,
    "hf_tokenizer_name": "test/nothing",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "siglip": {
        "vision_cfg": {"timm_model_name": "tiny_siglip", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": SIGLIP_TEXT,
        "init_logit_bias": -10,
    },
    "registers": {
        "vision_cfg": {"timm_model_name": "tiny_registers", "timm_pool": "token", "timm_proj": None},
        "text_cfg": {**TEXT, "width": 32, "heads": 2},
    },
    "eva": {
        "vision_cfg": {"timm_model_name": "tiny_eva", "timm_pool": "token", "timm_proj": None},
        "text_cfg": TEXT,
    },
    "pe": {
        "vision_cfg": {"timm_model_name": "tiny_pe", "timm_pool": "map", "timm_proj": None},
        "text_cfg": TEXT,
    },
    "average": {"vision_cfg": {**VISION, "pool_type": "avg"}, "text_cfg": TEXT},
    "norm-after-average": {
        "vision_cfg": {**VISION, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        "text_cfg": SIGLIP_TEXT,
    },
}
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
PIECES = "▁ ▁what ▁is ▁the ▁col or ▁circle ▁red ▁a ▁there ▁big ▁small ▁of ▁blue ▁square s ▁how ▁many é"


def write_family(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a model with random weights as a folder in the layout of the hub, and return the folder."""
    folder.mkdir(parents=True)
    about = {"embed_dim": SHARED, **FAMILIES[family]}
    about["vision_cfg"] = {"image_size": 24, **about["vision_cfg"]}
    custom = "timm_model_name" in about["vision_cfg"] or "init_logit_bias" in about
    config = {"model_cfg": {**about, "custom_text": custom}, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(random_weights(folder, seed).state_dict(), folder / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in about["text_cfg"]:
        write_tokenizer(folder)
    return folder


def random_weights(folder: Path, seed: int = 0) -> Any:
    """Return open_clip's own model of a folder in evaluation mode, with random weights, none of which is 0 or 1."""
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0, 0.3, generator=draw)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 1
    return model.eval().requires_grad_(False)


def write_tokenizer(folder: Path) -> None:
    """Write a sentencepiece tokenizer like SigLIP's: an end token, which is also the padding, and no start token."""
    special = ["<unk>", "</s>", "<pad>"]
    pieces = [(piece, 0.0) for piece in special] + [(piece, -1.0) for piece in PIECES.split()]
    pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrtuvwxyz0123456789"]
    whole = Tokenizer(models.Unigram(pieces, unk_id=0))
    whole.pre_tokenizer, whole.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    whole.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=whole, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
