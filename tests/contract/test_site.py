"""The documentation site builds without a warning, loads nothing from another host, and shows what the pages say.

Lists and tables are compared with CommonMark, by which repositories show the same files: the two kinds of Markdown
differ in where a list begins.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest
from hooks import formulas, outside
from markdown_it import MarkdownIt
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from page_checks import faults
from public import PROJECT

import clipmapper.api
import explain
import perturbation
from explain import adapters, explainers, figures, targets

pytestmark = pytest.mark.slow  # to build the site takes longer than all of its tests
PAGES = [*outside.ROOT_PAGES, *(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "docs").rglob("*.md"))]
TAGS = ("h1", "h2", "h3", "li", "ol", "td", "pre", "em", "strong", "blockquote")
#: What makes a browser load a file: these attributes, and url() and @import in style sheets.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]+)"
    r"|(?:url\(|@import )[\"']?((?:https?:)?//[^\s\"')]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, which is built as ``mkdocs build --strict`` does it."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(PROJECT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def content(site: Path, page: str) -> str:
    """Return the HTML of a page's text, without that of its navigation."""
    page_html = (site / outside.place(page)).with_suffix(".html").read_text(encoding="utf-8")
    return page_html[page_html.index("<article") : page_html.index("</article>")]


def counts(text: str) -> dict[str, int]:
    """Return how often each of ``TAGS`` is in HTML."""
    return {tag: len(re.findall(rf"<{tag}[ >]", text)) for tag in TAGS}


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    files = [path for suffix in ("html", "css") for path in site.rglob(f"*.{suffix}")]
    assert len(files) > 100
    found = {path.name: LOADS.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {name: urls for name, urls in found.items() if urls} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_every_page_can_be_read_in_a_browser_without_a_network(site: Path, scheme: str, width: int) -> None:
    """Nothing is wider than the window or has too little contrast, and no picture is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("there is no Chromium")
    found, asked = {}, list[str]()
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        for path in sorted(site.rglob("*.html")):
            if (site / "source") not in path.parents:
                page.goto(path.as_uri())
                found[path.relative_to(site).as_posix()] = faults(page)
        browser.close()
    assert len(found) > 40
    assert {name: each for name, each in found.items() if each} == {}
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_no_diagram_needs_a_script_of_another_host(site: Path) -> None:
    assert [path.name for path in site.rglob("*.html") if 'class="mermaid"' in path.read_text(encoding="utf-8")] == []
    assert [page for page in PAGES if "```mermaid" in (PROJECT / page).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_same_structure_as_in_the_repository(site: Path, page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    if "\n::: " in text:
        pytest.skip("the site adds docstrings")
    assert counts(content(site, page)) == counts(MarkdownIt("commonmark").enable("table").render(text))


def test_every_formula_is_drawn(site: Path) -> None:
    method = content(site, "docs/method.md")
    assert method.count("<math") == method.count('class="arithmatex"') > 100
    assert [page for page in PAGES if re.search(r'class="arithmatex">\\', content(site, page))] == []


def build_page(folder: Path, text: str) -> None:
    """Build a site of one page with the settings of the project, without its other pages."""
    (folder / "docs").mkdir()
    (folder / "docs" / "page.md").write_text(f"# One\n\n{text}\n")
    places = {"docs_dir": str(folder / "docs"), "site_dir": str(folder / "site")}
    config = load_config(str(PROJECT / "mkdocs.yml"), strict=True, **places)
    config.nav, config.extra_css = None, []
    config.plugins.events["files"].clear()  # the hook that adds the pages of the project
    build(config)


def names() -> dict[str, set[str]]:
    """Return the last parts of the names that each page of the Python interface must describe."""
    api = {name for name, each in vars(clipmapper.api).items() if getattr(each, "__module__", "") == "clipmapper.api"}
    of_explain = {*explain.__all__, *explainers.__all__, *adapters.__all__, *figures.__all__}
    of_targets = {name for name, each in vars(targets).items() if getattr(each, "__module__", "") == targets.__name__}
    return {
        "explain": of_explain - {"explainers", "targets"} | {name for name in of_targets if not name.startswith("_")},
        "perturbation": {*perturbation.__all__, "Measure", "Reader"},
        "clipmapper": {*clipmapper.__all__, "Loaded"} | {name for name in api if not name.startswith("_")},
    }


@pytest.mark.parametrize("page", ["explain", "perturbation", "clipmapper"])
def test_every_public_name_is_described(site: Path, page: str) -> None:
    text = content(site, f"docs/reference/python/{page}.md")
    described = {name.rpartition(".")[2] for name in re.findall(r'<h\d id="([\w.]+)"', text)}
    assert names()[page] - described == set()
    assert names()[page]


def test_references_in_docstrings_are_names(site: Path) -> None:
    pages = [content(site, f"docs/reference/python/{page}.md") for page in names()]
    assert [found for text in pages for found in re.findall(r":(?:func|class|mod|meth|attr|data):", text)] == []
    assert '<a class="autorefs autorefs-internal"' in pages[0]


@pytest.mark.parametrize("text", ["[1](nothing.md)", "[1](#nothing)", "[1](page.md#nothing)", "![1](nothing.png)"])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, text: str) -> None:
    with pytest.raises(Abort):
        build_page(tmp_path, text)


def test_a_link_to_a_heading_does_not_stop_the_build(tmp_path: Path) -> None:
    build_page(tmp_path, "[1](#one) [2](page.md#one)")


def test_links_are_moved_with_their_page() -> None:
    text = "[a](../../explain/trace.py) [b](../../README.md#top) [c](open-clip.md) ![](../pictures/hero.png) [d](#x)"
    assert outside.moved(text, "docs/how-to/index.md") == (
        "[a](../source/explain/trace.py.md) [b](../index.md#top) [c](open-clip.md) ![](../pictures/hero.png) [d](#x)"
    )
    text = '[a](docs/method.md#x) [b](https://example.org) `[c](docs/method.md)` <img src="docs/pictures/hero.png">'
    assert outside.moved(text, "README.md") == (
        '[a](method.md#x) [b](https://example.org) `[c](docs/method.md)` <img src="pictures/hero.png">'
    )


def test_a_formula_becomes_mathml() -> None:
    drawn = formulas.on_page_content('<span class="arithmatex">\\(a &lt; b\\)</span>', None, None, None)  # type: ignore[arg-type]
    assert drawn.startswith('<span class="arithmatex"><math')
    assert html.unescape(re.sub(r"<[^>]+>", "", drawn)) == "a<b"
