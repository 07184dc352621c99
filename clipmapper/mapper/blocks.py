"""What both mappers are built of: pre-norm attention and feed-forward sublayers, the projection in, the readout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipmapper.config.schema import MapperConfig
from clipmapper.nn import Tokens, attend, last_valid, take
from explain.capture.recording import active_recorder


@dataclass(frozen=True, eq=False)
class Stream:
    """One modality in a mapper as far as it goes without the other: ``x`` [B, n, d], ``valid`` bool [B, n]."""

    x: Tensor
    valid: Tensor


class AttentionSublayer(nn.Module):
    """x + attention(x, context); the queries' norm also norms the context where the two are the same stream."""

    def __init__(self, width: int, heads: int, dropout: float, query: str, key: str):
        super().__init__()
        self.modalities = (query, key)
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width) if query != key else self.norm
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, context: Tensor, mask: Tensor | None, stage: int | None = None, key: str | None = None
    ) -> Tensor:
        """``x`` [B, n_query, d], ``context`` [B, n_key, d] → [B, n_query, d].

        Steps of one ``stage`` run side by side; ``key`` names the context's modality where it is not the usual one.
        """
        return self.attend_to(x, *self.keys_values(context), mask, stage, key)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context's tokens, [B, n_key, d] each."""
        keys, values = self.key_value(self.context_norm(context)).chunk(2, -1)
        return keys, values

    def attend_to(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        stage: int | None = None,
        key: str | None = None,
    ) -> Tensor:
        """The same with the context's keys and values given: decoding has those of earlier tokens already."""
        added, probabilities = attend(self.query(self.norm(x)), keys, values, self.heads, self.out, mask)
        added = self.dropout(added)
        if (recorder := active_recorder()) is not None and probabilities is not None:
            query, usual = self.modalities
            recorder.step(query=query, key=key or usual, attention=probabilities, residual=x, output=added, stage=stage)
        return x + added


class FeedForward(nn.Module):
    """x + feed-forward(x), four times as wide inside."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.outer(nn.functional.gelu(self.inner(self.norm(x)))))


class TokenProjection(nn.Module):
    """Tokens of a modality to the mapper's width; with ``positions="learnt"`` each adds the embedding of its place."""

    def __init__(self, source: int, config: MapperConfig, places: int):
        super().__init__()
        self.linear = nn.Linear(source, config.width)
        self.positions: nn.Embedding | None = None
        if config.positions == "learnt":
            self.positions = nn.Embedding(places, config.width)
            nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, tokens: Tokens) -> Tensor:
        x = self.linear(tokens.features)
        return x if self.positions is None else x + self.positions(tokens.index)


class Readout(nn.Module):
    """Which token the answer is read from: ``cls`` and ``token`` in the image stream, ``eot`` in the text stream.

    ``token`` is a learnt token put before the class token; it makes the image stream one token longer.
    """

    def __init__(self, config: MapperConfig):
        super().__init__()
        self.name = config.readout
        self.stream = "text" if config.readout == "eot" else "image"
        self.learnt = nn.Parameter(torch.randn(config.width) * 0.02) if config.readout == "token" else None

    def extend(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the learnt token, if there is one, to the image stream [B, N, d] and its mask [B, N]."""
        if self.learnt is None:
            return image, valid
        if (recorder := active_recorder()) is not None:
            recorder.prepend("image")
        first = self.learnt.expand(len(image), 1, -1)
        return torch.cat([first, image], 1), torch.cat([valid.new_ones(len(valid), 1), valid], 1)

    def place(self, text_valid: Tensor) -> Tensor:
        """The read-out token's place in its own stream, [B]."""
        return (
            last_valid(text_valid) if self.stream == "text" else text_valid.new_zeros(len(text_valid), dtype=torch.long)
        )


def pick(x: Tensor, place: Tensor) -> Tensor:
    """One token a sample, kept as a sequence: [B, N, d], [B] → [B, 1, d]."""
    return take(x, place[:, None])


def key_mask(valid: Tensor) -> Tensor | None:
    """bool [B, N] → [B, 1, 1, N], the form attention takes; none where all are valid, which is faster."""
    return None if bool(valid.all()) else valid[:, None, None, :]


def causal_mask(length: int, device: torch.device) -> Tensor:
    """bool [length, length], true on and below the diagonal."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
