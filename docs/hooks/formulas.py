"""Hook of MkDocs that writes formulas as MathML, which browsers draw without scripts and fonts from another host."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

#: What pymdownx.arithmatex writes for ``$…$`` and ``$$…$$``.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def mathml(found: re.Match[str]) -> str:
    """Return a formula of LaTeX as MathML in the same element."""
    kind = "inline" if found[2] == "(" else "block"
    return f'<{found[1]} class="arithmatex">{convert(html.unescape(found[3]).strip(), display=kind)}</{found[1]}>'


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write all formulas of a page as MathML."""
    return _FORMULA.sub(mathml, html)
