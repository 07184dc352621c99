"""Building blocks of both mappers: pre-norm attention and feed-forward sublayers, token projection and read-out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipmapper.config.schema import MapperConfig
from clipmapper.nn import Tokens, attend, last_valid, take
from explain.capture.recording import active_recorder


@dataclass(frozen=True, eq=False)
class Stream:
    """One modality's tokens after the part of a mapper that doesn't need the other modality."""

    x: Tensor  #: [B, n, d]
    valid: Tensor  #: bool [B, n], false at padding


class AttentionSublayer(nn.Module):
    """Pre-norm attention sublayer, ``x + attention(x, context)``.

    In self-attention, one layer norm serves the queries and the context; in cross-attention, the context has a second
    layer norm.

    Args:
        width: Width d of the tokens.
        heads: Number of attention heads.
        dropout: Dropout probability of the attention's output.
        query: Name of the queries' modality, for recordings.
        key: Name of the context's modality; equal to ``query`` in self-attention.
    """

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
        """Add what the tokens ``x`` read from the tokens ``context``.

        Args:
            x: Residual stream of the queries, [B, n_query, d].
            context: Tokens that give the keys and values, [B, n_key, d].
            mask: bool, broadcastable to [B, H, n_query, n_key], true where a query may attend; None allows all.
            stage: Number shared by the attention steps that run in parallel (see ``Recorder.new_stage``).
            key: Name of the context's modality in this call, if it isn't the ``key`` of the constructor.

        Returns:
            The new residual stream, [B, n_query, d].
        """
        return self.attend_to(x, *self.keys_values(context), mask, stage, key)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the context's tokens, [B, n_key, d] each."""
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
        """Do what :meth:`forward` does with given keys and values, which decoding keeps for earlier tokens."""
        added, probabilities = attend(self.query(self.norm(x)), keys, values, self.heads, self.out, mask)
        added = self.dropout(added)
        if (recorder := active_recorder()) is not None and probabilities is not None:
            query, usual = self.modalities
            recorder.step(query=query, key=key or usual, attention=probabilities, residual=x, output=added, stage=stage)
        return x + added


class FeedForward(nn.Module):
    """Pre-norm feed-forward sublayer, ``x + feed_forward(x)``, with a hidden layer of width 4·d."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map the residual stream [B, n, d] to the new one, [B, n, d]."""
        return x + self.dropout(self.outer(nn.functional.gelu(self.inner(self.norm(x)))))


class TokenProjection(nn.Module):
    """Linear projection of a modality's tokens to the mapper's width.

    With ``config.positions="learnt"``, the embedding of its position in the complete input is added to each token.

    Args:
        source: Width of the encoder's tokens.
        config: The mapper's config.
        places: Number of position embeddings: the greatest number of tokens.
    """

    def __init__(self, source: int, config: MapperConfig, places: int):
        super().__init__()
        self.linear = nn.Linear(source, config.width)
        self.positions: nn.Embedding | None = None
        if config.positions == "learnt":
            self.positions = nn.Embedding(places, config.width)
            nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, tokens: Tokens) -> Tensor:
        """Project tokens [B, N, source], of any precision, to [B, N, d]."""
        x = self.linear(tokens.features.to(self.linear.weight.dtype))
        return x if self.positions is None else x + self.positions(tokens.index)


class Readout(nn.Module):
    """Choice of the token that the answer is read from (``config.readout``).

    - ``cls``: the class token of the image stream.
    - ``eot``: the end token of the text stream.
    - ``token``: a learnt token in front of the class token, which makes the image stream one token longer.
    """

    def __init__(self, config: MapperConfig):
        super().__init__()
        self.name = config.readout
        self.stream = "text" if config.readout == "eot" else "image"
        self.learnt = nn.Parameter(torch.randn(config.width) * 0.02) if config.readout == "token" else None

    def extend(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Put the learnt token, if there is one, in front of the image stream [B, N, d] and its mask [B, N]."""
        if self.learnt is None:
            return image, valid
        if (recorder := active_recorder()) is not None:
            recorder.prepend("image")
        first = self.learnt.expand(len(image), 1, -1)
        return torch.cat([first, image], 1), torch.cat([valid.new_ones(len(valid), 1), valid], 1)

    def place(self, text_valid: Tensor) -> Tensor:
        """Return the read-out token's position in its own stream, [B], for the texts' mask ``text_valid`` [B, N]."""
        return (
            last_valid(text_valid) if self.stream == "text" else text_valid.new_zeros(len(text_valid), dtype=torch.long)
        )


def pick(x: Tensor, place: Tensor) -> Tensor:
    """Return one token per sample as a sequence of length 1: tokens [B, N, d] and positions [B] → [B, 1, d]."""
    return take(x, place[:, None])


def key_mask(valid: Tensor) -> Tensor | None:
    """Return the attention mask [B, 1, 1, N] of a padding mask bool [B, N].

    On a CPU it is None where all tokens are valid, since attention without a mask is faster. A GPU would have to end
    all its work before the program knows whether they are.
    """
    return None if reads_at_once(valid.device) and bool(valid.all()) else valid[:, None, None, :]


def reads_at_once(device: torch.device) -> bool:
    """Return whether the program can read a value of a tensor on a device without waiting for earlier operations."""
    return device.type == "cpu"


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return the causal attention mask: bool [length, length], true on and below the diagonal."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
