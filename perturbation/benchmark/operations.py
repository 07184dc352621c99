"""Closed-form counts of the floating-point operations in a forward pass over a given number of tokens.

Only matrix products are counted, as one multiplication and one addition per term; norms, softmax and GELU are not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.tasks.vqa.model import CLIPMapperVQA


@dataclass(frozen=True)
class Operations:
    """Operation counts for one sample.

    The answer must be read from the image's class token: the counts leave out learnt read-out tokens.
    """

    model: CLIPMapperVQA

    def embedding(self) -> int:
        """Count the operations that embed the image's patches."""
        vision = self.model.encoder.vision
        return 2 * vision.patches * int(vision.visual.conv1.weight.numel())

    def image(self, tokens: int) -> int:
        """Count the image encoder and the part of the mapper that does not read the text, for ``tokens`` tokens."""
        encoder = _encoder_operations(self.model.encoder.vision, tokens)
        return encoder + self._mapper_start(self.model.trained.mapper.project_image, tokens)

    def text(self, tokens: int) -> int:
        """Count the text encoder and the part of the mapper that does not read the image, for ``tokens`` tokens."""
        encoder = _encoder_operations(self.model.encoder.text, tokens)
        return encoder + self._mapper_start(self.model.trained.mapper.project_text, tokens)

    def answer(self, image: int, text: int) -> int:
        """Count the rest of the mapper and the head.

        The last layer computes only the token from which the answer is read.

        Args:
            image: Number of image tokens, with the class token.
            text: Number of text tokens.
        """
        mapper = self.model.trained.mapper
        finish = self._dual_stream if isinstance(mapper, DualStream) else self._single_stream
        return finish(image, text) + 2 * _weight_count(self.model.trained.head)

    def _mapper_start(self, projection: nn.Module, tokens: int) -> int:
        mapper = self.model.trained.mapper
        self_attention = self._attention(tokens, tokens) if isinstance(mapper, DualStream) else 0
        return 2 * tokens * _weight_count(projection.linear) + self_attention  # type: ignore[arg-type]

    def _dual_stream(self, image: int, text: int) -> int:
        layers = len(self.model.trained.mapper.image_layers)  # type: ignore[arg-type]
        self_attention = self._attention(image, image) + self._attention(text, text)
        cross = self._attention(image, text) + self._attention(text, image) + self._feed_forward(image + text)
        last = self._attention(1, text) + self._feed_forward(1)
        if layers > 1:  # the first layer's self-attention is counted in _mapper_start
            last += self._attention(1, image) + self._attention(text, text)
        return (layers - 1) * cross + max(0, layers - 2) * self_attention + last

    def _single_stream(self, image: int, text: int) -> int:
        tokens, layers = image + text, len(self.model.trained.mapper.attentions)  # type: ignore[arg-type]
        block = self._attention(tokens, tokens) + self._feed_forward(tokens)
        return (layers - 1) * block + self._attention(1, tokens) + self._feed_forward(1)

    def _attention(self, queries: int, keys: int) -> int:
        """Count the four projections (query, key, value, output) and the two products between tokens."""
        return 4 * (queries + keys) * self._width**2 + 4 * queries * keys * self._width

    def _feed_forward(self, tokens: int) -> int:
        return 16 * tokens * self._width**2

    @property
    def _width(self) -> int:
        return int(self.model.trained.head[1].in_features)  # type: ignore[arg-type]


def _encoder_operations(tower: VisionTower | TextTower, tokens: int) -> int:
    return len(tower.blocks) * (2 * tokens * _weight_count(tower.blocks[0]) + 4 * tokens**2 * tower.width)


def _weight_count(module: nn.Module) -> int:
    """Return the number of entries in all weight matrices of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)
