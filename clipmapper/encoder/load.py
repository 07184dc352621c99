"""Loading an open_clip model by name: the embedded one, local weights, or a hub tag; always frozen."""

from __future__ import annotations

import hashlib
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

from clipmapper.config import EncoderConfig
from clipmapper.encoder.embedded import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, register_embedded, restore_token_table
from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.errors import UserError


@dataclass(frozen=True)
class TextBatch:
    """Tokenized texts at their true lengths: ``ids`` and ``valid`` [B, N], start and end tokens included, padding last.

    ``truncated`` counts the texts that were longer than the encoder's context.
    """

    ids: Tensor
    valid: Tensor
    truncated: int


class FrozenClip(nn.Module):
    """A CLIP model that is only ever read: both towers, CLIP's preprocessing and its BPE."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str):
        super().__init__()
        self.vision = VisionTower(model.visual)
        self.text = TextTower(getattr(model, "text", model))
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.name = name
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenClip:
        """Stays in evaluation mode whatever contains it is set to."""
        return super().train(False)

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """RGB pictures of any size → [B, 3, H, W], resized, cropped and normalised as CLIP does it."""
        return torch.stack([self.preprocess(image) for image in images])

    def tokenize(self, texts: list[str]) -> TextBatch:
        """Texts → ids at true length; what exceeds the context is cut off before the end token."""
        tok, context = self.tokenizer, self.text.context_length
        encoded = [[tok.sot_token_id, *tok.encode(text), tok.eot_token_id] for text in texts]
        truncated = sum(len(ids) > context for ids in encoded)
        encoded = [ids if len(ids) <= context else [*ids[: context - 1], ids[-1]] for ids in encoded]
        lengths = torch.tensor([len(ids) for ids in encoded])
        longest = int(lengths.max())
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
        return TextBatch(ids, torch.arange(longest) < lengths[:, None], truncated)

    def fingerprint(self) -> str:
        """Changes with any weight, with the preprocessing and with the architecture."""
        digest = hashlib.blake2b(f"{self.name} {self.preprocess}".encode(), digest_size=16)
        for name, tensor in self.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def load_encoder(config: EncoderConfig) -> FrozenClip:
    """The encoder a config names.

    Raises ``UserError`` where open_clip knows no such model, or the weights are missing, damaged or another model's.
    """
    register_embedded()
    _check_name(config.model)
    source = str(EMBEDDED_WEIGHTS) if config.weights == "embedded" else config.weights
    if config.weights == "embedded" and config.model != EMBEDDED_MODEL:
        raise UserError(f"encoder.weights=embedded belongs to encoder.model={EMBEDDED_MODEL}, not to {config.model}")
    model = _with_weights(config.model, source)
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    tokenizer = open_clip.get_tokenizer(config.model)
    if not isinstance(tokenizer, open_clip.tokenizer.SimpleTokenizer):
        raise UserError(f"encoder.model={config.model} does not use CLIP's own BPE: choose a plain CLIP model")
    return FrozenClip(model, transform, tokenizer, config.model)


def _check_name(name: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise UserError(f"open_clip knows no model {name}; close to it: {', '.join(close)}")


def _with_weights(name: str, source: str) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(name)
    path = Path(source)
    if source not in tags and not path.is_file():
        raise UserError(
            f"encoder.weights={source} is no file, and no hub tag of {name} (tags: {', '.join(tags) or 'none'}): "
            "give the path of a weights file or one of the tags"
        )
    model = _quietly_created(name)
    try:
        if source in tags:
            model = open_clip.create_model(name, pretrained=source)
        else:
            _load_file(model, path)
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError, pickle.UnpicklingError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"encoder.weights={source}: no weights of {name} ({reason[:160]}); give a matching file"
        ) from error
    except OSError as error:
        raise UserError(
            f"encoder.weights={source}: cannot be fetched or read ({str(error).splitlines()[0][:160]}); "
            "download the file elsewhere and give its path"
        ) from error
    return model


def _quietly_created(name: str) -> Any:
    """open_clip warns that the model has no weights yet; they come next."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(name)
    finally:
        logger.setLevel(level)


def _load_file(model: nn.Module, path: Path) -> None:
    """Safetensors, or a PyTorch file read without unpickling code."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        model.load_state_dict(restore_token_table(state))
    else:
        open_clip.load_checkpoint(model, str(path), weights_only=True)
