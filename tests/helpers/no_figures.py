"""Runs that draw no figures. Drawing takes longer than the tests' small runs, and few tests look at the figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

DRAWN = (
    "clipmapper.tasks.vqa.pictures.draw",
    "clipmapper.tasks.vqa.pictures.save",
    "clipmapper.tasks.caption.pictures.draw_caption_pages",
    "clipmapper.tasks.caption.pictures.save",
    "clipmapper.any_model.pictures.draw",
    "clipmapper.any_model.pictures.save",
    "perturbation.measures.areas.curve_figure",
    "perturbation.measures.areas.save",
)


@contextmanager
def without_figures() -> Iterator[None]:
    """Inside the context, ``explain`` and ``perturb`` write everything but figures."""
    with ExitStack() as stack:
        for name in DRAWN:
            stack.enter_context(patch(name))
        yield
