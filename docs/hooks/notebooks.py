"""Hook of MkDocs that adds a page for each notebook, with its outputs."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from traitlets.config import Config


def page_of(notebook: Path) -> str:
    """Return the Markdown of a notebook, which contains its pictures."""
    exporter = MarkdownExporter(config=Config(ExtractOutputPreprocessor={"enabled": False}))
    text, _ = exporter.from_filename(str(notebook))
    return f'{text}\n\n<a href="{notebook.name}" download>Download this notebook</a>\n'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of all notebooks."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=page_of(Path(str(notebook.abs_src_path)))))
    return files
