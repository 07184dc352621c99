"""Where each modality's tokens lie in the joint order."""

from collections.abc import Mapping

JOINT = "joint"


class TraceError(ValueError):
    """A trace, or a question asked of it, that does not fit: the message names the step and the tensor."""


def span(sizes: Mapping[str, int], modality: str) -> slice:
    """The joint positions of a modality's tokens; the joint order is the order of ``sizes``.

    Raises:
        TraceError: the modality is neither in ``sizes`` nor ``"joint"``.
    """
    if modality == JOINT:
        return slice(0, sum(sizes.values()))
    start = 0
    for name, size in sizes.items():
        if name == modality:
            return slice(start, start + size)
        start += size
    raise TraceError(f"unknown modality {modality!r}; this trace has {', '.join(map(repr, [*sizes, JOINT]))}")
