"""Where the tokens of a trace are in a model's tensors.

A stack of layers holds its tokens in a tensor [..., D]. A *place* is a token's index in that tensor, flattened to
[T, D]. An int tensor ``places`` [B, n] has the places of each sample's tokens, and -1 for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from explain.capture.parts import Parts


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens at the given places: [..., D] and [B, n] → [B, n, D]; padding is 0."""
    taken = tokens.flatten(0, -2)[places.clamp(min=0)]
    return taken.where((places >= 0)[:, :, None], 0)


def put(tokens: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Return the tokens [..., D] with the values [B, n, D] at the given places [B, n]."""
    there = places >= 0
    flat = tokens.flatten(0, -2).index_put((places[there],), values[there].to(tokens.dtype))
    return flat.view_as(tokens)


def stream(tokens: Tensor, places: Tensor, view: Callable[[Tensor], Tensor] | None = None) -> Parts:
    """Return a stream [..., D] of a model as a value [B, n, D] of the trace; ``view`` returns it from the tensor."""
    return Parts((tokens,), lambda tensors: take(view(tensors[0]) if view else tensors[0], places), len(places))


def attention(pieces: Sequence[Tensor], queries: Tensor, keys: Tensor) -> Parts:
    """Return attention maps of a model as a value [B, H, n_s, n_q] of the trace.

    Args:
        pieces: Maps [b, H, m, k] in the order of the places. Each row of a map attends only to the keys of that map.
        queries: Places of the queries, [B, n_s].
        keys: Places of the keys, [B, n_q].
    """
    return Parts(tuple(pieces), lambda tensors: _attention(tensors, queries, keys), len(queries))


def _attention(pieces: Sequence[Tensor], queries: Tensor, keys: Tensor) -> Tensor:
    whole = pieces[0].new_zeros(len(queries), pieces[0].shape[1], queries.shape[1], keys.shape[1])
    of_queries, of_keys = _Inverse(queries), _Inverse(keys)
    first_query = first_key = 0
    for piece in pieces:
        for block in piece:  # [H, m, k]
            m, k = block.shape[1:]
            for sample in of_queries.samples(first_query, m):
                rows, to_rows = of_queries.tokens(sample, first_query, m)
                columns, to_columns = of_keys.tokens(sample, first_key, k)
                whole[sample][:, to_rows[:, None], to_columns] = block[:, rows[:, None], columns]
            first_query, first_key = first_query + m, first_key + k
    return whole


class _Inverse:
    """The sample and the position in it of the token at each place."""

    def __init__(self, places: Tensor) -> None:
        sample, position = (places >= 0).nonzero(as_tuple=True)
        at = places[sample, position]
        order = at.argsort()
        self._at, self._sample, self._position = at[order], sample[order], position[order]

    def _range(self, first: int, count: int) -> slice:
        ends = torch.tensor([first, first + count], device=self._at.device)
        start, stop = torch.searchsorted(self._at, ends).tolist()
        return slice(start, stop)

    def samples(self, first: int, count: int) -> list[int]:
        """Return the samples with a token at one of ``count`` places from ``first`` on."""
        return self._sample[self._range(first, count)].unique().tolist()

    def tokens(self, sample: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return a sample's tokens at these places: their place from ``first`` on, and their position."""
        here = self._range(first, count)
        own = self._sample[here] == sample
        return self._at[here][own] - first, self._position[here][own]


def in_sequence(mask: Tensor) -> Tensor:
    """Return the places of the tokens of a batch [B, L] for which the mask is true, in order, [B, n]."""
    counts = mask.sum(1)
    first = torch.arange(int(counts.max()) if len(counts) else 0, device=mask.device)
    order = (~mask).int().argsort(dim=1, stable=True)[:, : len(first)]
    places = order + torch.arange(len(mask), device=mask.device)[:, None] * mask.shape[1]
    return places.masked_fill(first >= counts[:, None], -1)
