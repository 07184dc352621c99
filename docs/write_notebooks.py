"""Run the notebooks in docs/notebooks and save them with their outputs: ``python docs/write_notebooks.py``.

The source of ``NAME.ipynb`` is ``NAME.py`` beside it, in jupytext's percent format. It takes some minutes on two cores.
"""

from __future__ import annotations

import base64
import os
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
WIDTH, COLOURS = 800, 256  # most pixels in a row of a stored picture, and its colours
KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def sources() -> list[Path]:
    """Return the sources of all notebooks."""
    return sorted(NOTEBOOKS.glob("*.py"))


def read_source(source: Path) -> NotebookNode:
    """Return the notebook of a source, without outputs; equal sources give equal notebooks."""
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(KERNEL)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()
    return notebook


def executed(source: Path, root: Path) -> NotebookNode:
    """Return the notebook of a source with the outputs of a run in the folder of the notebooks.

    Args:
        source: The source.
        root: The folder for the data that the run draws.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = read_source(source)
    environment = {**os.environ, "CLIPMAPPER_ROOT": str(root)}
    client = NotebookClient(notebook, timeout=1200, record_timing=False, resources={"metadata": {"path": NOTEBOOKS}})
    client.execute(env=environment)
    for cell in [each for each in notebook.cells if each.cell_type == "code"]:
        # The error stream shows the progress, and warnings of libraries that name their files.
        cell["outputs"] = [each for each in cell.outputs if each.get("name") != "stderr"]
        for output in cell["outputs"]:
            if "data" in output:
                output["data"] = _stored(output["data"])
    notebook.metadata = NotebookNode(KERNEL)
    return notebook


def _stored(data: dict[str, Any]) -> dict[str, Any]:
    """Return an output with a small picture. Of a picture and a page, the picture is kept, which every viewer shows."""
    if "image/png" not in data:
        return data
    with Image.open(BytesIO(base64.b64decode(data["image/png"]))) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDTH, 4 * WIDTH))
    file = BytesIO()
    small.quantize(COLOURS).save(file, "png", optimize=True)
    return {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": data["text/plain"]}


def main() -> None:
    """Write all notebooks."""
    with TemporaryDirectory() as root:
        for source in sources():
            target = source.with_suffix(".ipynb")
            nbformat.write(executed(source, Path(root)), target)
            print(f"wrote docs/notebooks/{target.name}, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
