"""Write the drawings of docs/architecture.md as SVG files to docs/diagrams: ``python docs/write_diagrams.py``."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

DIAGRAMS = Path(__file__).resolve().parent / "diagrams"
WIDE, HIGH = 172, 52  # a box
ACROSS, DOWN = 202, 112  # from one box to the next, and from one band to the next
LEFT, TOP = 24, 34
INK, LINE, BAND, BOX = "#1f2933", "#52606d", "#eef2f7", "#ffffff"


@dataclass(frozen=True)
class Box:
    """A box at a column of a band, with one or two lines of text, and the rooms of the package that it stands for."""

    column: int
    lines: tuple[str, ...]
    rooms: tuple[str, ...] = ()


#: Boxes of the drawing of the imports, by the package of their band.
PACKAGES: dict[str, dict[str, Box]] = {
    "scripts": {"scripts": Box(0, ("scripts", "thin entry points"), ("scripts",))},
    "perturbation": {
        "pcommands": Box(0, ("commands, cli",), ("perturbation/commands", "perturbation/cli.py")),
        "page": Box(1, ("page, demo",), ("perturbation/page", "perturbation/demo")),
        "pruns": Box(
            2,
            ("perturb, localise,", "randomise, benchmark"),
            tuple(f"perturbation/{room}" for room in ("perturb", "localise", "randomise", "benchmark")),
        ),
        "measures": Box(3, ("measures",), ("perturbation/measures",)),
        "pshared": Box(
            4,
            ("removal, report,", "statistics"),
            ("perturbation/removal", "perturbation/report", "perturbation/statistics.py"),
        ),
    },
    "clipmapper": {
        "commands": Box(1, ("commands,", "benchmarks"), ("clipmapper/commands", "clipmapper/benchmarks")),
        "tasks": Box(2, ("tasks: vqa, caption;", "any_model"), ("clipmapper/tasks", "clipmapper/any_model")),
        "middle": Box(
            3,
            ("explaining, mapper,", "llava, metrics"),
            ("clipmapper/explaining", "clipmapper/mapper", "clipmapper/llava", "clipmapper/metrics"),
        ),
        "low": Box(
            4,
            ("features, encoder,", "training, data"),
            tuple(f"clipmapper/{room}" for room in ("features", "encoder", "training", "data", "config")),
        ),
    },
    "explain": {
        "adapters": Box(1, ("adapters",), ("explain/adapters",)),
        "capture": Box(2, ("capture, lrp",), ("explain/capture", "explain/lrp")),
        "explainers": Box(3, ("explainers, figures",), ("explain/explainers", "explain/figures")),
        "trace": Box(
            4,
            ("trace, step,", "relevance, targets"),
            tuple(f"explain/{file}.py" for file in ("trace", "step", "relevance", "targets")),
        ),
    },
}
#: Arrows of that drawing: from a box that imports to one that is imported; perturbation/cli.py does so by name.
IMPORTS = (
    *(("scripts", "pcommands"), ("pcommands", "commands"), ("pcommands", "page"), ("page", "pruns")),
    *(("pruns", "measures"), ("measures", "pshared"), ("pruns", "tasks"), ("pshared", "tasks")),
    *(("pruns", "explainers"), ("commands", "tasks"), ("tasks", "middle"), ("middle", "low")),
    *(("tasks", "capture"), ("middle", "capture"), ("low", "capture"), ("adapters", "capture")),
    *(("capture", "explainers"), ("explainers", "trace")),
)
#: Boxes of the drawing of the data, in its two bands.
FLOW: dict[str, dict[str, Box]] = {
    "a model answers, and its answer is explained": {
        "data": Box(0, ("data", "images, texts")),
        "encoder": Box(1, ("encoder", "frozen CLIP")),
        "mapper": Box(2, ("mapper and head", "trained")),
        "trace": Box(3, ("trace", "attention, gradients")),
        "explainer": Box(4, ("explainer", "relevance")),
    },
    "the explanation is tested": {
        "removal": Box(2, ("removal", "token subsets")),
        "measures": Box(3, ("measures", "records per sample")),
        "report": Box(4, ("report", "tables, figures")),
    },
}
STREAM = ("data", "encoder", "mapper", "trace", "explainer", "removal", "measures", "report")


def place(bands: dict[str, dict[str, Box]], name: str) -> tuple[int, int]:
    """Return the top left corner of a box."""
    [(row, box)] = [(row, band[name]) for row, band in enumerate(bands.values()) if name in band]
    return LEFT + 16 + box.column * ACROSS, TOP + row * DOWN


def ends(start: tuple[int, int], end: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the two ends of an arrow: sides of boxes in one band, else the bottom of one and the top of the other."""
    (x, y), (to_x, to_y) = start, end
    if y == to_y:
        return x + WIDE, y + HIGH / 2, to_x - 3, to_y + HIGH / 2
    aside = 24 * ((to_x > x) - (to_x < x))
    return x + WIDE / 2 + aside, y + HIGH, to_x + WIDE / 2 - aside, to_y - 3


def svg(bands: dict[str, dict[str, Box]], arrows: tuple[tuple[str, str], ...], title: str) -> str:
    """Return a drawing of bands with boxes and arrows, on a white ground so that it is read on any page."""
    width, height = 2 * LEFT + 32 + 4 * ACROSS + WIDE, len(bands) * DOWN + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="14">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for row, name in enumerate(bands):
        y = TOP + row * DOWN - 24
        band = f'<rect x="{LEFT}" y="{y}" width="{width - 2 * LEFT}" height="{HIGH + 34}" rx="6" fill="{BAND}"/>'
        style = f'text-anchor="end" font-weight="600" fill="{LINE}"'
        parts.append(f'{band}<text x="{width - LEFT - 16}" y="{y + 17}" {style}>{escape(name)}</text>')
    for start, end in arrows:
        from_x, from_y, to_x, to_y = ends(place(bands, start), place(bands, end))
        line = f'<line x1="{from_x:g}" y1="{from_y:g}" x2="{to_x:g}" y2="{to_y:g}"'
        parts.append(f'{line} stroke="{LINE}" stroke-width="1.3" marker-end="url(#tip)"/>')
    for name, box in ((name, box) for band in bands.values() for name, box in band.items()):
        left, top = place(bands, name)
        parts.append(f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" rx="6" fill="{BOX}" stroke="{LINE}"/>')
        middle = top + HIGH / 2 + 5 - 9 * (len(box.lines) - 1)
        for number, text in enumerate(box.lines):
            at = f'x="{left + WIDE / 2:g}" y="{middle + 18 * number:g}"'
            parts.append(f'<text {at} text-anchor="middle" fill="{INK}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def drawings() -> dict[str, str]:
    """Return the content of each file."""
    flow = tuple(itertools.pairwise(STREAM))
    return {
        "rooms.svg": svg(PACKAGES, IMPORTS, "Who imports whom"),
        "data_flow.svg": svg(FLOW, flow, "From the data to the report"),
    }


if __name__ == "__main__":
    for name, content in drawings().items():
        (DIAGRAMS / name).write_text(content, encoding="utf-8")
        print(f"wrote docs/diagrams/{name}")
