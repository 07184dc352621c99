"""The pages are consistent: links lead somewhere, and docs/method.md has every equation and section that is cited."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from public import PROJECT

PAGES = [
    *(page for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (page := PROJECT / name).is_file()),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
METHOD = PROJECT / "docs" / "method.md"
PACKAGES = ("explain", "clipmapper", "perturbation")

_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_LINKS = (
    re.compile(r"\]\(\s*<?([^)>\s]+)>?(?:\s+[\"'][^)]*)?\)"),  # [text](target "title"), and images
    re.compile(r"^ {0,3}\[[^\]^]+\]:\s*<?([^>\s]+)>?", re.MULTILINE),  # [name]: target
    re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\""),
)
_ANCHOR = re.compile(r"<a\b[^>]*?\b(?:id|name)=\"([^\"]+)\"")
_NUMBER = r"\d+(?:\s*[-–]\s*\d+)?"
_EQUATIONS = re.compile(rf"\bEqs?\.\s+({_NUMBER}(?:(?:,\s+and|,|\s+and)\s+{_NUMBER})*)")
_SECTION = re.compile(r"docs/method\.md,\s+(.+)", re.DOTALL)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading: lower case, no punctuation, hyphens for spaces."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # links count by their text
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(page: str) -> set[str]:
    """Return all anchors of a page; the second of two equal headings gets the suffix -1."""
    text = _FENCE.sub("", page)
    found = set(_ANCHOR.findall(text))
    seen: dict[str, int] = {}
    for heading in _HEADING.findall(text):
        name = slug(heading)
        count = seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def links(page: str) -> list[str]:
    """Return the targets of all links and images of a page that are not absolute; code is not looked at."""
    text = _CODE.sub("``", _FENCE.sub("", page))
    targets = [target for pattern in _LINKS for target in pattern.findall(text)]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|//", target)]


def broken_links(page: Path, root: Path) -> list[str]:
    """Return the links of a page whose file is missing or outside ``root``, or whose heading does not exist."""
    broken = []
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / unquote(name)).resolve() if name else page
        if not file.exists() or not file.is_relative_to(root):
            broken.append(f"{target}: no such file")
        elif anchor and (file.suffix != ".md" or unquote(anchor) not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(f"{target}: no such heading")
    return broken


def docstrings(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield every docstring of modules, classes and functions, with its file."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield file, text


def equations(text: str) -> set[int]:
    """Return the equation numbers that a text cites: ``Eq. 7``, ``Eq. 9-11``, ``Eq. 4, 9 and 10``."""
    found: set[int] = set()
    for cited in _EQUATIONS.findall(text):
        for numbers in re.findall(_NUMBER, cited):
            first, *last = map(int, re.findall(r"\d+", numbers))
            found.update(range(first, (last or [first])[0] + 1))
    return found


def sections(page: str) -> list[str]:
    """Return the titles of a page's second-level headings."""
    return re.findall(r"^## +(.+?) *$", _FENCE.sub("", page), re.MULTILINE)


def unknown_sections(text: str, known: Iterable[str]) -> list[str]:
    """Return what follows "docs/method.md," in a text where it is not the title of a section."""
    cited = [" ".join(found.split()) for found in re.split(r"(?=docs/method\.md)", text)]
    titles = [found[1] for each in cited if (found := _SECTION.match(each))]
    return [title[:40] for title in titles if not any(re.match(rf"{re.escape(name)}\b", title) for name in known)]


@pytest.fixture(scope="module")
def cited() -> list[tuple[str, str]]:
    """Return all docstrings of the packages, with the file of each."""
    files = [file for package in PACKAGES for file in sorted((PROJECT / package).rglob("*.py"))]
    return [(file.relative_to(PROJECT).as_posix(), text) for file, text in docstrings(files)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken_links(page, PROJECT) == []


def test_cited_equations_are_in_the_method(cited: list[tuple[str, str]]) -> None:
    known = equations(METHOD.read_text(encoding="utf-8"))
    found = {f"{file}: Eq. {number}": number for file, text in cited for number in equations(text)}
    assert {7, 20, 26} <= set(found.values())
    assert [name for name, number in found.items() if number not in known] == []


def test_cited_sections_are_in_the_method(cited: list[tuple[str, str]]) -> None:
    known = sections(METHOD.read_text(encoding="utf-8"))
    assert [f"{file}: {title}" for file, text in cited for title in unknown_sections(text, known)] == []


def test_the_method_has_its_sections() -> None:
    assert sections(METHOD.read_text(encoding="utf-8")) == [
        *("Notation", "Weighted relevance", "Token maps", "Modality interaction", "Captions", "Baselines", "Controls"),
        *("CLIPmapper", "Perturbation tests", "Measures", "Localisation", "Randomisation", "References"),
    ]


def test_slugs_are_those_of_github() -> None:
    assert slug("What runs in `train`") == "what-runs-in-train"
    assert slug("Rooms & imports: [who](who.md) calls whom?") == "rooms--imports-who-calls-whom"
    assert slug("A_b – c") == "a_b--c"


def test_anchors_of_a_page() -> None:
    page = '# One\n\n```\n# not a heading\n```\n\n## Two ##\n\n## Two\n\n<a id="here"></a>\n'
    assert anchors(page) == {"one", "two", "two-1", "here"}


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text("# There\n")
    (tmp_path / "code.py").write_text("")
    page = tmp_path / "docs" / "a.md"
    page.write_text(
        '# Here\n\n[1](b.md) [2](b.md#there) [3](#here) ![4](../code.py "code") [5](https://example.org/x)\n\n'
        "`[6](in_code.md)`\n\n```\n[7](in_block.md)\n```\n\n"
        '[8](c.md) [9](b.md#here) [10](#there)\n<img src="d.png">\n[11](../../outside.md)\n\n[12]: e.md\n'
    )
    (tmp_path.parent / "outside.md").write_text("")
    assert broken_links(page, tmp_path) == [
        *("c.md: no such file", "b.md#here: no such heading", "#there: no such heading"),
        *("../../outside.md: no such file", "e.md: no such file", "d.png: no such file"),
    ]


def test_equations_that_are_cited() -> None:
    assert equations("Eq. 7, and (Huang et al. 2023, Eq. 9-11).") == {7, 9, 10, 11}
    assert equations("Eq. 4, 9,\n10 and 11; Eq. 24–26") == {4, 9, 10, 11, 24, 25, 26}
    assert equations("Equation 5, 3 eq. and Eq. one") == set()


def test_an_unknown_equation_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""Eq. 1."""\n\n\nclass A:\n    """Eq. 2-3."""\n\n    def f(self):\n        "Eq. 99."\n')
    cited = {number for _, text in docstrings([file]) for number in equations(text)}
    assert cited - equations("Eq. 1-34") == {99}


def test_an_unknown_section_is_found() -> None:
    known = ["Captions", "Weighted relevance"]
    assert unknown_sections("see docs/method.md, Weighted\n    relevance, and docs/method.md, Captions.", known) == []
    assert unknown_sections("See docs/method.md. (docs/method.md, Caption)", known) == ["Caption)"]
