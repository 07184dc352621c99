"""The style of each explainer, which is the same in all figures: colour, dash pattern and marker of its curve.

Explainers of one family share a hue; controls are grey and dashed. Every two colours differ by at least 10 in CAM02-UCS
(Luo et al. 2006), also as seen with protanopia, deuteranopia and tritanopia (Machado et al. 2009).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

FIRST = "weighted"  # the method of the paper comes first in every figure
MOST = 8  # curves in one panel
SOLID: tuple[float, ...] = ()


@dataclass(frozen=True)
class Style:
    """How the curve of an explainer is drawn."""

    colour: str  #: on a white page, such as ``#242cbf``
    on_dark: str  #: on a dark page
    marker: str  #: symbol of matplotlib
    dash: tuple[float, ...] = SOLID  #: lengths of dashes and spaces, as multiples of the line's width

    def line(self, place: int) -> dict[str, Any]:
        """Return the properties of the curve of explainer number ``place``, which is above those of the later ones."""
        dash = (0, self.dash) if self.dash else "-"
        return {"color": self.colour, "marker": self.marker, "linestyle": dash, "zorder": 2 + 1 / (1 + place)}


# Accumulation is blue, the last attention orange, gradients green, and other people's explainers purple.
_STYLES = {
    "weighted": Style("#242cbf", "#3b51ee", "o"),
    "genatt": Style("#5e75f6", "#8e91ff", "s"),
    "trans_att": Style("#161e4e", "#c5ddff", "D"),
    "rollout": Style("#66acf7", "#96bdfd", "^"),
    "attention_gradcam": Style("#e0993d", "#e3ae6d", "v"),
    "partial_lrp": Style("#c1640c", "#c88740", "P"),
    "raw_attention": Style("#8a3500", "#d1321d", "s"),
    "integrated_gradients": Style("#467e4f", "#8dff8b", "D"),
}
_OTHERS = (
    Style("#955094", "#9f159f", "^"),
    Style("#713370", "#9a5891", "v"),
    Style("#be6fb5", "#f753c7", "P"),
)
_CONTROLS = {
    "random": Style("#7b7b83", "#81838a", "o", (2, 2)),
    "uniform": Style("#36393f", "#edf0f6", "s", (4, 2)),
    "constant": Style("#5b5f65", "#c4c6cd", "D", (6, 2)),
    "shuffled": Style("#9ea0a7", "#9da2a7", "^", (4, 1, 1, 1)),
    "depth_matched": Style("#2e251d", "#e8dbcd", "v", (6, 2, 2, 2)),
    "input_x_gradient": Style("#0e0d14", "#c2b3a7", "P", (8, 2)),
    "centre_first": Style("#9b8d82", "#9c9185", "o", (4, 1)),
    "first_to_last": Style("#534b41", "#7d7167", "s", (1, 1)),
    "last_to_first": Style("#beb1a4", "#5c5e63", "D", (1, 2)),
}
_DASHES = (SOLID, (5, 2), (2, 2))  # of other people's explainers, which share three colours


def styles_of(names: Iterable[str], controls: Collection[str] = ()) -> dict[str, Style]:
    """Return the style of each explainer.

    A name that this package does not know gets a purple style, or one of the greys that no other name has if it is one
    of the ``controls``. These styles depend on the order of the names.
    """
    known = _STYLES | _CONTROLS
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in known]
    greys = [style for name, style in _CONTROLS.items() if name not in names] or list(_CONTROLS.values())
    found = {name: known[name] for name in names if name in known}
    for place, name in enumerate(name for name in unknown if name in controls):
        found[name] = greys[place % len(greys)]
    for place, name in enumerate(name for name in unknown if name not in controls):
        turn, which = divmod(place, len(_OTHERS))
        found[name] = replace(_OTHERS[which], dash=_DASHES[turn % len(_DASHES)])
    return {name: found[name] for name in names}


def in_order(names: Iterable[str]) -> list[str]:
    """Return each name once: ``weighted`` first, then the others in their order."""
    return sorted(dict.fromkeys(names), key=lambda name: name != FIRST)


def panels_of(names: Sequence[str], controls: Collection[str] = ()) -> list[list[str]]:
    """Divide the explainers among panels with at most ``MOST`` curves.

    If one panel is not enough, the controls have panels of their own, and the first explainer that is no control is
    repeated in these for comparison.
    """
    ordered = in_order(names)
    if len(ordered) <= MOST:
        return [ordered]
    compared = [name for name in ordered if name in controls or name in _CONTROLS]
    tested = [name for name in ordered if name not in compared]
    first = tested[:1]
    return [*_parts(tested, MOST), *([*first, *part] for part in _parts(compared, MOST - len(first)))]


def _parts(names: Sequence[str], most: int) -> list[list[str]]:
    """Divide the names into as few parts as possible, of similar length."""
    count = -(-len(names) // most)
    return [list(names[len(names) * k // count : len(names) * (k + 1) // count]) for k in range(count)]
