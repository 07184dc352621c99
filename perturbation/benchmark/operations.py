"""How many floating-point operations a reading of so many tokens needs, in closed form.

Those of matrix products, a multiplication and an addition each; norms, softmax and GELU are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.tasks.vqa.model import CLIPMapperVQA


@dataclass(frozen=True)
class Operations:
    """Of one sample read by a model whose image stream has no learnt read-out token and gives the answer."""

    model: CLIPMapperVQA

    def embedding(self) -> int:
        """The picture's patches."""
        vision = self.model.encoder.vision
        return 2 * (vision.token_count - 1) * int(vision.visual.conv1.weight.numel())

    def image(self, tokens: int) -> int:
        """So many tokens through the image encoder, and as far into the mapper as the text does not matter."""
        return _encoder(self.model.encoder.vision, tokens) + self._begin(
            self.model.trained.mapper.project_image, tokens
        )

    def text(self, tokens: int) -> int:
        """The same of a text."""
        return _encoder(self.model.encoder.text, tokens) + self._begin(self.model.trained.mapper.project_text, tokens)

    def answer(self, image: int, text: int) -> int:
        """The rest of the mapper, where the last layer answers for one token, and the head."""
        mapper = self.model.trained.mapper
        finish = self._dual_stream if isinstance(mapper, DualStream) else self._single_stream
        return finish(image, text) + 2 * _weights(self.model.trained.head)

    def _begin(self, projection: nn.Module, tokens: int) -> int:
        mapper = self.model.trained.mapper
        own = self._attention(tokens, tokens) if isinstance(mapper, DualStream) else 0
        return 2 * tokens * _weights(projection.linear) + own  # type: ignore[arg-type]

    def _dual_stream(self, image: int, text: int) -> int:
        layers = len(self.model.trained.mapper.image_layers)  # type: ignore[arg-type]
        own = self._attention(image, image) + self._attention(text, text)
        cross = self._attention(image, text) + self._attention(text, image) + self._feed_forward(image + text)
        last = self._attention(1, text) + self._feed_forward(1)
        if layers > 1:  # the first layer's self-attention belongs to the beginning
            last += self._attention(1, image) + self._attention(text, text)
        return (layers - 1) * cross + max(0, layers - 2) * own + last

    def _single_stream(self, image: int, text: int) -> int:
        tokens, layers = image + text, len(self.model.trained.mapper.attentions)  # type: ignore[arg-type]
        block = self._attention(tokens, tokens) + self._feed_forward(tokens)
        return (layers - 1) * block + self._attention(1, tokens) + self._feed_forward(1)

    def _attention(self, queries: int, keys: int) -> int:
        """Queries and outputs, keys and values, and the two products between them."""
        return 4 * (queries + keys) * self._width**2 + 4 * queries * keys * self._width

    def _feed_forward(self, tokens: int) -> int:
        return 16 * tokens * self._width**2

    @property
    def _width(self) -> int:
        return int(self.model.trained.head[1].in_features)  # type: ignore[arg-type]


def _encoder(tower: VisionTower | TextTower, tokens: int) -> int:
    return len(tower.blocks) * (2 * tokens * _weights(tower.blocks[0]) + 4 * tokens**2 * tower.width)


def _weights(module: nn.Module) -> int:
    """Entries of all weight matrices."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)
