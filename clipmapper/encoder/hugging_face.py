"""A frozen encoder as a CLIP model of ``transformers``: the same weights and vocabulary in that library's layout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError, reason
from clipmapper.files import read_json
from clipmapper.finite import halved

_WRITER, _NAME = "written_by", "clipmapper"  # a key of config.json, by which a folder is recognised
CLOSE = 1e-4  # largest accepted difference between the normalised embeddings of both models
_ACTIVATIONS = {
    "GELU(approximate='none')": "gelu",
    "GELU(approximate='tanh')": "gelu_pytorch_tanh",
    "QuickGELU()": "quick_gelu",
}
# Parts of a block: their names in transformers and in open_clip.
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_hugging_face(encoder: FrozenClip, folder: Path) -> float:
    """Write an encoder as a folder that ``CLIPModel`` and ``CLIPProcessor`` load: safetensors and JSON files.

    Returns:
        The largest difference between the normalised embeddings of both models, for a random image and a text.

    Raises:
        UserError: ``transformers`` is not installed, ``folder`` exists and is not such a folder, or the encoder has
            parts that ``CLIPModel`` lacks.
    """
    check_folder(folder)
    model, processor = as_hugging_face(encoder)
    difference = _difference(encoder, model)
    if not difference <= CLOSE:
        raise UserError(
            f"encoder.model={encoder.name}: its embeddings differ by {difference:.2g} from those of transformers' "
            "CLIPModel, which lacks a part of it; choose a plain CLIP such as ViT-B-32-quickgelu"
        )
    write_folder(model, processor, folder)
    return difference


def check_folder(folder: Path) -> None:
    """Check that a model can be written to a folder.

    Raises:
        UserError: ``folder`` exists, and is neither empty nor a folder that :func:`write_folder` wrote.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: exists and is not a model's folder; give output=FOLDER, a new folder")
    try:
        content = read_json(config)
    except UserError:
        content = None
    if not isinstance(content, dict) or ("model_type" in content and content.get(_WRITER) != _NAME):
        raise UserError(
            f"{folder}: contains a model of another program; give output=FOLDER, a new folder, or remove it"
        )


def write_folder(model: Any, processor: Any, folder: Path, half: bool = False) -> None:
    """Write a model and its processor as a folder that ``transformers`` loads; its other files are kept.

    Args:
        model: A model of ``transformers``.
        processor: Its processor.
        folder: The folder, which is created.
        half: Write the weights in half precision. They are loaded in the model's own precision.

    Raises:
        UserError: The folder cannot be written, or a weight does not fit in half precision.
    """
    state = halved(model.state_dict(), str(folder)) if half else model.state_dict()
    model.config.update({_WRITER: _NAME})
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
            with without_progress_bars():
                model.save_pretrained(partial, state_dict=state)
            processor.save_pretrained(partial)
            folder.mkdir(exist_ok=True)
            for file in Path(partial).iterdir():
                shutil.move(file, folder / file.name)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the model cannot be written ({reason(error)}); give a writable folder on a disk with space"
        ) from error


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch off the progress bars of ``transformers`` while the body runs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def as_hugging_face(encoder: FrozenClip) -> tuple[Any, Any]:
    """Return a ``CLIPModel`` with the encoder's weights, in evaluation mode, and its ``CLIPProcessor``.

    Raises:
        UserError: ``transformers`` is not installed, or the encoder's weights are not those of a ``CLIPModel``.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError('transformers is not installed: pip install -e ".[transformers]"') from error
    try:
        model = transformers.CLIPModel(transformers.CLIPConfig(**_config(encoder)))
        model.load_state_dict(_weights(encoder), strict=True)
    except (AttributeError, KeyError, RuntimeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(
            f"encoder.model={encoder.name} cannot be written as transformers' CLIPModel ({line}); choose a plain CLIP "
            "such as ViT-B-32-quickgelu"
        ) from error
    return model.eval().requires_grad_(False), _processor(encoder)


def _config(encoder: FrozenClip) -> dict[str, Any]:
    visual, text = encoder.vision.visual, encoder.text.text
    tokenizer = encoder.tokenizer
    return {
        "projection_dim": visual.proj.shape[1],
        "vision_config": _tower(visual) | {"image_size": visual.image_size[0], "patch_size": visual.patch_size[0]},
        "text_config": _tower(text)
        | {
            "vocab_size": text.token_embedding.num_embeddings,
            "max_position_embeddings": encoder.text.context_length,
            "bos_token_id": tokenizer.sot_token_id,
            "eos_token_id": tokenizer.eot_token_id,
            "pad_token_id": tokenizer.eot_token_id,
        },
    }


def _tower(tower: Any) -> dict[str, Any]:
    """Return the sizes of a tower, and its activation."""
    blocks = tower.transformer.resblocks
    first = blocks[0]
    return {
        "hidden_size": first.ln_1.normalized_shape[0],
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": first.attn.num_heads,
        "hidden_act": _ACTIVATIONS[repr(first.mlp.gelu)],
        "layer_norm_eps": first.ln_1.eps,
    }


def _weights(encoder: FrozenClip) -> dict[str, Tensor]:
    """Return the encoder's weights by the names of ``CLIPModel``."""
    visual, text = encoder.vision.visual, encoder.text.text
    weights = {
        "logit_scale": text.logit_scale,
        "visual_projection.weight": visual.proj.T,
        "text_projection.weight": encoder.text.shared_projection.T,
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "text_model.embeddings.token_embedding.weight": text.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": text.positional_embedding,
    }
    norms = {
        "vision_model.pre_layrnorm": visual.ln_pre,
        "vision_model.post_layernorm": visual.ln_post,
        "text_model.final_layer_norm": text.ln_final,
    }
    for name, norm in norms.items():
        weights |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    for name, tower in (("vision_model", visual), ("text_model", text)):
        for number, block in enumerate(tower.transformer.resblocks):
            weights |= _block(f"{name}.encoder.layers.{number}", block)
    return {name: weight.detach().contiguous() for name, weight in weights.items()}


def _block(name: str, block: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        found |= {f"{name}.{own}.{kind}": getattr(block.get_submodule(part), kind) for own, part in _BLOCK.items()}
        joint = getattr(block.attn, f"in_proj_{kind}")
        found |= {
            f"{name}.self_attn.{part}_proj.{kind}": rows for part, rows in zip("qkv", joint.chunk(3), strict=True)
        }
    return found


def _processor(encoder: FrozenClip) -> Any:
    """Return the preprocessing of images and the tokenizer.

    Raises:
        UserError: Images are resized in another way than by CLIP.
    """
    import transformers

    about = open_clip.transform.PreprocessCfg(**encoder.vision.visual.preprocess_cfg)
    if about.resize_mode != "shortest":
        raise UserError(f"encoder.model={encoder.name}: resize_mode={about.resize_mode} is not that of CLIP: shortest")
    rows, cols = encoder.vision.visual.image_size
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": rows},
        crop_size={"height": rows, "width": cols},
        resample=Image.Resampling[about.interpolation.upper()],
        image_mean=list(about.mean),
        image_std=list(about.std),
    )
    known = encoder.tokenizer
    start, end = (known.decoder[number] for number in (known.sot_token_id, known.eot_token_id))
    renamed = {start: "<|startoftext|>", end: "<|endoftext|>"}  # the names that CLIPTokenizer keeps in one piece
    vocabulary = {renamed.get(piece, piece): number for piece, number in known.encoder.items()}
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=list(known.bpe_ranks), model_max_length=encoder.text.context_length
    )
    return transformers.CLIPProcessor(images, tokenizer)


@torch.no_grad()
def _difference(encoder: FrozenClip, model: Any) -> float:
    """Return the largest difference of the normalised embeddings, for a random image and a text."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, *encoder.vision.visual.image_size, generator=draw)
    text = encoder.tokenize(["a red circle left of a blue square"])
    own = encoder.vision.pooled(encoder.vision(pixels)), encoder.text.pooled(encoder.text(text.ids, text.valid))
    others = model.get_image_features(pixels).pooler_output, model.get_text_features(text.ids).pooler_output
    normal = torch.nn.functional.normalize
    return max(float((normal(a) - normal(b)).abs().max()) for a, b in zip(own, others, strict=True))
