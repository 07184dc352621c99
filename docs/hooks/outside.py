"""Hook of MkDocs that adds pages for files outside of ``docs``, so that the site needs no other host.

README.md is the first page of the site. A source file or a folder that a page links to becomes a page below ``source``.
All links of a page are written again for the place of the page in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parents[2]
#: Pages of the project's root folder, and their files in the site.
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".css": "css", ".js": "javascript"}
NOT_FOUND_BY_SEARCH = "---\nsearch:\n  exclude: true\n---\n"

_LINK = re.compile(
    r"(?P<code>^ *```.*?^ *```|(?P<ticks>`+)[^`].*?(?P=ticks))"
    r"|(?P<before>\]\(|\bsrc=\")(?P<target>(?![a-z]+:|#|//)[^)\s\"#]+)",
    re.MULTILINE | re.DOTALL,
)


def place(path: str) -> str:
    """Return the file in the site of a file or folder of the project, both as relative paths.

    That of a notebook is the page that :mod:`hooks.notebooks` makes of it.
    """
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    if path.startswith("docs/") and path.endswith(".ipynb"):
        return path.removeprefix("docs/").removesuffix(".ipynb") + ".md"
    inside = path.removeprefix("docs/")
    is_page = path.startswith("docs/") and Path(path).suffix in (".md", ".png", ".svg", ".csv")
    return inside if is_page else f"source/{path}.md"


def origin(place: str) -> str:
    """Return the file of the project that a page of the site is made from."""
    return next((name for name, page in ROOT_PAGES.items() if page == place), f"docs/{place}")


def resolved(target: str, page: str) -> str:
    """Return the path, relative to the project's root, of the target of a link in a file of the project."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(target)))


def targets(text: str, page: str) -> set[str]:
    """Return the paths that the links of a page lead to."""
    return {resolved(found["target"], page) for found in _LINK.finditer(text) if found["target"]}


def moved(text: str, page: str) -> str:
    """Return the text of a page with links that are relative to its place in the site."""
    folder = posixpath.dirname(place(page))

    def link(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        return found["before"] + posixpath.relpath(place(resolved(found["target"], page)), folder or ".")

    return _LINK.sub(link, text)


def source_page(path: str) -> str:
    """Return the page that shows a source file, or lists a folder."""
    file = PROJECT / path
    if file.is_dir():
        names = sorted(each.name + "/" * each.is_dir() for each in file.iterdir() if each.name[0] not in "._")
        body = "\n".join(f"- `{name}`" for name in names)
    else:
        body = f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}````"
    return f"{NOT_FOUND_BY_SEARCH}# {path}\n\n{body}\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root folder, and one page for each source file or folder that is linked to."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(PROJECT / name).read_text(encoding="utf-8")))
    for file in [each for each in files if each.is_documentation_page()]:
        for path in sorted(targets(file.content_string, origin(file.src_uri))):
            new = place(path)
            if new.startswith("source/") and files.get_file_from_path(new) is None and (PROJECT / path).exists():
                page = source_page(path)
                files.append(File.generated(config, new, content=page, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Move the links of a page to its place in the site."""
    uri = page.file.src_uri
    return markdown if uri.startswith("source/") else moved(markdown, origin(uri))
