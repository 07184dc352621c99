"""CLIP models of ``transformers`` as encoders: their architecture, preprocessing and weights in open_clip's terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipmapper.config.schema import TrainedWithConfig
from clipmapper.errors import UserError, reason

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
_MARK = "vision_model.embeddings.class_embedding"  # a weight that only these models have
_BPE = 49408  # size of the vocabulary of CLIP's own BPE
_ACTIVATIONS: Mapping[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # numbers of Pillow
_OUTSIDE = {  # weights outside of the blocks: their names in open_clip and in transformers
    "logit_scale": "logit_scale",
    "visual.class_embedding": _MARK,
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    **{f"visual.ln_pre.{kind}": f"vision_model.pre_layrnorm.{kind}" for kind in ("weight", "bias")},
    **{f"visual.ln_post.{kind}": f"vision_model.post_layernorm.{kind}" for kind in ("weight", "bias")},
    **{f"ln_final.{kind}": f"text_model.final_layer_norm.{kind}" for kind in ("weight", "bias")},
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def describe(folder: Path) -> tuple[dict[str, Any], TrainedWithConfig]:
    """Return open_clip's description of the architecture in a folder, and what its weights were trained with.

    Raises:
        UserError: ``transformers`` is not installed, a file is damaged, or the model is no CLIP with CLIP's own BPE.
    """
    try:
        import transformers

        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        images = transformers.CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise UserError('transformers is not installed: pip install -e ".[transformers]"') from error
    except Exception as error:  # damaged files raise errors of many types
        raise UserError(f"{folder}: {CONFIG} or {PREPROCESSING} cannot be read ({reason(error)})") from error
    if config.model_type != "clip" or config.text_config.vocab_size != _BPE:
        raise UserError(
            f"{folder}: an encoder must be a CLIP with CLIP's own BPE, not {config.model_type}; give a folder with "
            "open_clip_config.json, or explain this model with model=huggingface"
        )
    vision, text = config.vision_config, config.text_config
    unknown = {vision.hidden_act, text.hidden_act} - _ACTIVATIONS.keys()
    if unknown or len({vision.hidden_act == "quick_gelu", text.hidden_act == "quick_gelu"}) > 1:
        raise UserError(f"{folder}: open_clip has no CLIP with the activations {vision.hidden_act}, {text.hidden_act}")
    heads = {"head_width": vision.hidden_size // vision.num_attention_heads}
    architecture = {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {**_tower(vision), **heads, "image_size": vision.image_size, "patch_size": vision.patch_size},
        "text_cfg": {
            **_tower(text),
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
        },
    }
    return architecture, TrainedWithConfig(
        quick_gelu=vision.hidden_act == "quick_gelu",
        mean=list(images.image_mean),
        std=list(images.image_std),
        interpolation=_RESAMPLING.get(int(images.resample), "bicubic"),
        resize_mode="shortest" if images.do_center_crop else "squash",
    )


def _tower(config: Any) -> dict[str, Any]:
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
        **_ACTIVATIONS[config.hidden_act],
    }


def in_open_clips_terms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a ``CLIPModel`` by open_clip's names; those of other models are returned unchanged.

    Raises:
        KeyError: A weight is missing.
    """
    if _MARK not in state:
        return state
    found = {ours: state[theirs] for ours, theirs in _OUTSIDE.items()}
    found["visual.proj"] = state["visual_projection.weight"].T
    found["text_projection"] = state["text_projection.weight"].T
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        blocks = {name.split(".")[3] for name in state if name.startswith(f"{theirs}.encoder.layers.")}
        for number in blocks:
            block, source = f"{ours}.resblocks.{number}", f"{theirs}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                found |= {f"{block}.{own}.{kind}": state[f"{source}.{part}.{kind}"] for own, part in _PARTS.items()}
                joined = torch.cat([state[f"{source}.self_attn.{part}_proj.{kind}"] for part in "qkv"])
                found[f"{block}.attn.in_proj_{kind}"] = joined
    return found
