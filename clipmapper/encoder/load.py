"""Loading of frozen open_clip models by name: the embedded one, local weights, or a hub tag."""

from __future__ import annotations

import difflib
import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

from clipmapper.config.schema import BaseConfig, EncoderConfig, TrainerConfig
from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.errors import UserError

EMBEDDED_MODEL = "shapes-tiny"
_FOLDER = Path(__file__).resolve().parent / "embedded"
EMBEDDED_WEIGHTS = _FOLDER / f"{EMBEDDED_MODEL}.safetensors"
TOKEN_STD = 0.05
# CLIP's BPE has 49,408 tokens, and the pre-training captions use about a hundred of them. The embedded file contains
# only these rows of the token table. All other rows are seeded random numbers, so that they are different for different
# words.
_TABLE, _ROWS, _IDS = "token_embedding.weight", "token_embedding.rows", "token_embedding.ids"


@dataclass(frozen=True)
class TextBatch:
    """Tokenized texts at their true lengths, with start and end tokens and with padding at the end."""

    #: Token ids, [B, N].
    ids: Tensor
    #: bool [B, N], false at padding.
    valid: Tensor
    #: Number of texts that were longer than the encoder's context and were cut off.
    truncated: int

    def to(self, device: torch.device) -> TextBatch:
        """Return the texts on a device."""
        return TextBatch(self.ids.to(device), self.valid.to(device), self.truncated)


class FrozenClip(nn.Module):
    """A CLIP model that is never trained: both towers, with CLIP's preprocessing and tokenizer (BPE)."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str):
        super().__init__()
        self.vision = VisionTower(model.visual)
        self.text = TextTower(getattr(model, "text", model))
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.name = name
        self.requires_grad_(False).eval()

    @classmethod
    def of(cls, model: Any, name: str) -> FrozenClip:
        """Return an open_clip model as a frozen encoder, with its own preprocessing and tokenizer."""
        config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        transform = open_clip.transform.image_transform_v2(config, is_train=False)
        return cls(model, transform, open_clip.get_tokenizer(name), name)

    def train(self, mode: bool = True) -> FrozenClip:
        """Stay in evaluation mode, even if a module that contains the encoder is set to training mode."""
        return super().train(False)

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """Resize, crop and normalise RGB images of any size as CLIP does → [B, 3, H, W]."""
        return torch.stack([self.preprocess(image) for image in images])

    def tokenize(self, texts: list[str]) -> TextBatch:
        """Tokenize texts at their true lengths; longer ones lose their last sub-words and keep the end token."""
        tok, context = self.tokenizer, self.text.context_length
        encoded = [[tok.sot_token_id, *tok.encode(text), tok.eot_token_id] for text in texts]
        truncated = sum(len(ids) > context for ids in encoded)
        encoded = [ids if len(ids) <= context else [*ids[: context - 1], ids[-1]] for ids in encoded]
        lengths = torch.tensor([len(ids) for ids in encoded])
        longest = int(lengths.max())
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
        return TextBatch(ids, torch.arange(longest) < lengths[:, None], truncated)

    def fingerprint(self) -> str:
        """Return a hash that changes with every weight, the preprocessing and the architecture."""
        return fingerprint(self, f"{self.name} {self.preprocess}")


def fingerprint(module: nn.Module, about: str) -> str:
    """Return a hash of a text and of every parameter and buffer of a module."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):  # shared parameters are listed once
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_encoder(config: EncoderConfig) -> FrozenClip:
    """Load the encoder that a config names.

    Raises:
        UserError: open_clip has no such model, its towers are not supported (:mod:`clipmapper.encoder.towers`), or the
            weights are missing, damaged or do not fit the model.
    """
    return FrozenClip.of(load_open_clip(config.model, config.weights), config.model)


def load_open_clip(name: str, weights: str) -> Any:
    """Load an open_clip model, without its preprocessing and its tokenizer.

    Args:
        name: Name of the architecture in open_clip.
        weights: ``embedded``, a local file, or a tag of open_clip.

    Raises:
        UserError: open_clip has no architecture ``name``, its tokenizer is not CLIP's own BPE, or its towers are not
            supported (:mod:`clipmapper.encoder.towers`); the weights are ``embedded`` and belong to another
            architecture; or they are missing, damaged, of another architecture or activation, or cannot be downloaded.
            The message calls the arguments ``encoder.model`` and ``encoder.weights``, as the config does.
    """
    register_embedded()
    _check_name(name)
    source = str(EMBEDDED_WEIGHTS) if weights == "embedded" else weights
    if weights == "embedded" and name != EMBEDDED_MODEL:
        raise UserError(f"encoder.weights=embedded belongs to encoder.model={EMBEDDED_MODEL}, not to {name}")
    return _with_weights(name, source)


def _check_name(name: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise UserError(f"open_clip has no model {name}; similar names: {', '.join(close)}")
    text = open_clip.get_model_config(name)["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UserError(f"encoder.model={name} does not use CLIP's own BPE: choose a plain CLIP model")


def _with_weights(name: str, source: str) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(name)
    path = Path(source)
    if source not in tags and not path.is_file():
        raise UserError(
            f"encoder.weights={source} is neither a file nor a hub tag of {name} (tags: {', '.join(tags) or 'none'}): "
            "give the path of a weights file or one of the tags"
        )
    if source in tags:
        _check_activation(name, source)
    model = _create_quietly(name)
    FrozenClip(model, None, None, name)  # raises an error for an unsupported model before any weights are downloaded
    if source in tags:
        return _from_hub(name, source)
    _load_file(model, name, path)
    return model


def _create_quietly(name: str) -> Any:
    """Create a model without open_clip's warning about missing weights, which are loaded later."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(name)
    finally:
        logger.setLevel(level)


def _check_activation(name: str, tag: str) -> None:
    """Raise UserError if the weights were trained with another activation than the model has.

    open_clip only warns about it, and the features would be wrong.
    """
    of_model, of_tag = (
        bool(settings.get("quick_gelu"))
        for settings in (open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag))
    )
    if of_model != of_tag:
        fitting = f"{name}-quickgelu" if of_tag else name.removesuffix("-quickgelu")
        raise UserError(
            f"encoder.weights={tag} were trained with{'' if of_tag else 'out'} QuickGELU, unlike encoder.model={name}: "
            f"choose encoder.model={fitting}"
        )


def _from_hub(name: str, tag: str) -> Any:
    try:
        return open_clip.create_model(name, pretrained=tag)
    except Exception as error:  # the client of the hub raises many error types without a common base class
        raise UserError(
            f"encoder.weights={tag}: cannot be downloaded ({_reason(error)}); "
            "download the file elsewhere and give its path"
        ) from error


def _load_file(model: nn.Module, name: str, path: Path) -> None:
    """Load a safetensors file, or a PyTorch file without running pickled code; all names and shapes must fit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that damaged bytes seem to name
            state = open_clip.factory.load_state_dict(str(path), weights_only=True)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        model.load_state_dict(restore_token_table(state))
    except OSError as error:
        raise UserError(f"encoder.weights={path}: cannot be read ({_reason(error)}); give a readable file") from error
    except Exception as error:  # damaged files raise errors of many types, such as struct.error
        raise UserError(
            f"encoder.weights={path} does not contain weights of {name} ({_reason(error)}); give a matching file"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def use(config: BaseConfig) -> torch.device:
    """Set torch's number of threads as in the config, and return the device of the config's trainer.

    Raises:
        UserError: There is no such device.
    """
    use_threads(config.threads)
    return pick_device(config.trainer)


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads; None keeps torch's default."""
    if threads is not None:
        torch.set_num_threads(threads)


def pick_device(trainer: TrainerConfig) -> torch.device:
    """Return the device for the trainer's accelerator, on which the encoder runs.

    Raises:
        UserError: There is no such device.
    """
    if trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={trainer.accelerator}: torch finds no GPU here; give cpu or auto")
    return torch.device("cpu")


def register_embedded() -> None:
    """Register the embedded model with open_clip, so that it can be created by name."""
    if EMBEDDED_MODEL not in open_clip.list_models():
        open_clip.add_model_config(_FOLDER / f"{EMBEDDED_MODEL}.json")


def seeded_token_table(tokens: int, width: int) -> Tensor:
    """Return the token table before training, [tokens, width], with the same numbers on every machine."""
    numbers = np.random.Generator(np.random.PCG64(0)).standard_normal((tokens, width), dtype=np.float32)
    return torch.from_numpy(numbers * TOKEN_STD)


def shorten_token_table(state: dict[str, Tensor], trained: Tensor) -> dict[str, Tensor]:
    """Return the state dict with its token table reduced to the rows ``trained`` (token ids)."""
    short = {name: tensor for name, tensor in state.items() if name != _TABLE}
    return short | {_ROWS: state[_TABLE][trained].clone(), _IDS: trained}


def restore_token_table(state: dict[str, Tensor], tokens: int = 49408) -> dict[str, Tensor]:
    """Undo :func:`shorten_token_table`; a state dict with a complete table is returned unchanged.

    The rows that are not in the state dict are those of :func:`seeded_token_table`.
    """
    if _ROWS not in state:
        return state
    whole = {name: tensor for name, tensor in state.items() if name not in (_ROWS, _IDS)}
    table = seeded_token_table(tokens, state[_ROWS].shape[1])
    table[state[_IDS]] = state[_ROWS].to(table.dtype)
    return whole | {_TABLE: table}
