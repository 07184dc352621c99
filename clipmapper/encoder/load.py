"""The frozen encoder: both towers of an open_clip model, with its preprocessing and its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from xxhash import xxh3_128

from clipmapper.config.schema import BaseConfig, EncoderConfig
from clipmapper.config.trainer import TrainerConfig
from clipmapper.encoder.folders import text_config
from clipmapper.encoder.hub_tokenizer import HubTokenizer
from clipmapper.encoder.open_clip_models import activation_note, check_source, load_open_clip, load_tokenizer
from clipmapper.encoder.timm_tower import vision_tower
from clipmapper.encoder.towers import TextTower
from clipmapper.encoder.trained_with import Source
from clipmapper.errors import UserError


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
    """A CLIP model that is never trained: both towers, with the model's preprocessing and tokenizer.

    The tokenizer is CLIP's own BPE, or a :class:`~clipmapper.encoder.hub_tokenizer.HubTokenizer`.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str):
        super().__init__()
        self.vision = vision_tower(model.visual)
        self.text = TextTower(getattr(model, "text", model))
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.name = name
        self.precision = "float32"
        self._fingerprint = "", ""  # a quick hash of all that the fingerprint depends on, and the fingerprint
        self.requires_grad_(False).eval()

    @classmethod
    def of(cls, model: Any, name: str, tokenizer: Any = None) -> FrozenClip:
        """Return an open_clip model as a frozen encoder with its own preprocessing; by default with CLIP's BPE."""
        config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        transform = open_clip.transform.image_transform_v2(config, is_train=False)
        return cls(model, transform, tokenizer or open_clip.get_tokenizer(name), name)

    def use_precision(self, name: str) -> FrozenClip:
        """Compute matrix products in ``float32``, ``bfloat16`` or ``float16``; the weights and tokens stay float32."""
        self.precision = name
        self.vision.products = self.text.products = None if name == "float32" else getattr(torch, name)
        return self

    def train(self, mode: bool = True) -> FrozenClip:
        """Stay in evaluation mode, even if a module that contains the encoder is set to training mode."""
        return super().train(False)

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """Resize, crop and normalise RGB images of any size as CLIP does → [B, 3, H, W]."""
        return torch.stack([self.preprocess(image) for image in images])

    def tokenize(self, texts: list[str]) -> TextBatch:
        """Tokenize texts; those that are longer than the context lose their last sub-words and keep the end token.

        They have their true lengths, unless the text encoder reads padding as a part of a text.
        """
        if isinstance(self.tokenizer, HubTokenizer):
            return TextBatch(*self.tokenizer.batch(texts))
        tok, context = self.tokenizer, self.text.context_length
        encoded = [[tok.sot_token_id, *tok.encode(text), tok.eot_token_id] for text in texts]
        truncated = sum(len(ids) > context for ids in encoded)
        encoded = [ids if len(ids) <= context else [*ids[: context - 1], ids[-1]] for ids in encoded]
        lengths = torch.tensor([len(ids) for ids in encoded])
        longest = int(lengths.max())
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
        return TextBatch(ids, torch.arange(longest) < lengths[:, None], truncated)

    def sub_words(self, texts: TextBatch) -> Tensor:
        """Return which tokens of texts are their sub-words, bool [B, N]: none that mark a start, an end or padding."""
        if isinstance(self.tokenizer, HubTokenizer):
            return texts.valid & self.tokenizer.is_sub_word(texts.ids)
        inside = texts.valid.clone()
        inside[:, 0] = False
        return inside.scatter(1, (texts.valid.sum(1) - 1)[:, None], False)

    def closed_up(self, ids: Tensor, valid: Tensor) -> TextBatch:
        """Return texts without the tokens that are not valid, which follow the others in each row.

        Args:
            ids: [B, N].
            valid: bool [B, N].
        """
        if not self.text.fills_context:
            return TextBatch(ids, valid, 0)
        room = self.text.context_length - ids.shape[1]
        padded = nn.functional.pad(ids.masked_fill(~valid, self.tokenizer.pad), (0, room), value=self.tokenizer.pad)
        return TextBatch(padded, torch.ones_like(padded, dtype=torch.bool), 0)

    @property
    def released(self) -> bool:
        """Whether weights were freed (:mod:`clipmapper.encoder.released`)."""
        return any(weight.is_meta for weight in self.parameters())

    def fingerprint(self) -> str:
        """Return a hash of every weight, the preprocessing, the activation, the architecture and the precision."""
        if self.released:
            return self._fingerprint[1]
        about = f"{self.name} {self.preprocess}{activation_note(self.text.text, self.name)}"
        if self.precision != "float32":
            about += f" products in {self.precision}"
        quick = xxh3_128()  # ten times as fast, so that asking again costs little
        for piece in _pieces(self, about):
            quick.update(piece)
        if quick.hexdigest() != self._fingerprint[0]:
            self._fingerprint = quick.hexdigest(), fingerprint(self, about)
        return self._fingerprint[1]


def fingerprint(module: nn.Module, about: str) -> str:
    """Return a hash of a text and of every parameter and buffer of a module."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces(module, about):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(module: nn.Module, about: str) -> Iterator[bytes | memoryview]:
    yield about.encode()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):  # shared parameters are listed once
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def load_encoder(config: EncoderConfig) -> FrozenClip:
    """Load the encoder that a config names.

    Raises:
        UserError: See :func:`~clipmapper.encoder.open_clip_models.load_open_clip`.
    """
    source = check_source(Source.of(config))
    model = load_open_clip(source)
    return FrozenClip.of(model, source.name, load_tokenizer(source)).use_precision(config.precision)


def check_encoder(config: EncoderConfig, generates: bool = False) -> None:
    """Check the names in a config, so that a wrong one is reported before any data is read.

    Args:
        config: The encoder's config.
        generates: Whether captions are generated with the encoder.

    Raises:
        UserError: The encoder cannot generate captions; see also
            :func:`~clipmapper.encoder.open_clip_models.check_source`.
    """
    source = check_source(Source.of(config))
    about = text_config(source)
    if generates and (about.get("no_causal_mask") or about.get("hf_tokenizer_name")):
        raise UserError(
            f"{source.model}: captions need a causal text encoder with CLIP's own BPE; choose one such as ViT-B-32"
        )


def use(config: BaseConfig) -> torch.device:
    """Set torch's number of threads and the precision of products as in the config, and return the trainer's device.

    Raises:
        UserError: There is no such device.
    """
    use_threads(config.threads)
    torch.set_float32_matmul_precision(config.trainer.float32_matmul)
    torch.backends.cudnn.allow_tf32 = config.trainer.float32_matmul != "highest"  # torch's default is True
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
