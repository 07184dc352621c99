"""CLIPmapper's second stage: the mappers that fuse frozen image and text tokens."""

from __future__ import annotations

from clipmapper.config.schema import MapperConfig
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.mapper.single_stream import SingleStream

Mapper = SingleStream | DualStream
MAPPERS: dict[str, type[SingleStream] | type[DualStream]] = {"a": SingleStream, "b": DualStream}


def build_mapper(
    config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int
) -> Mapper:
    """The mapper a config names, for encoders of these widths and (at most) these numbers of tokens."""
    return MAPPERS[config.name](config, image_width, text_width, image_tokens, text_tokens)
