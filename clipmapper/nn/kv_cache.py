"""Keys and values kept from token to token, so that decoding computes each of them once."""

from __future__ import annotations

from torch import Tensor


class KeyValues:
    """What one attention keeps of the tokens seen so far; ``room`` is how many may follow the first ones."""

    def __init__(self, room: int):
        self._room = room
        self._length = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens, [B, n, D] each, and returns those of all so far; raises ``ValueError`` where there is no room.

        What was returned before stays as it was.
        """
        if self._kept is None:  # one allocation: joining tensors at every token would copy all of them each time
            places = keys.shape[1] + self._room
            self._kept = tuple(x.new_empty(len(x), places, x.shape[2]) for x in (keys, values))  # type: ignore[assignment]
        assert self._kept is not None
        start, end = self._length, self._length + keys.shape[1]
        if end > self._kept[0].shape[1]:
            raise ValueError(f"room for {self._kept[0].shape[1]} tokens, not for {end}")
        for kept, new in zip(self._kept, (keys, values), strict=True):
            kept[:, start:end] = new
        self._length = end
        return self._kept[0][:, :end], self._kept[1][:, :end]
