"""docs/reference/model-families.md is what a run of every family gives."""

from __future__ import annotations

import pytest
from public import PROJECT

PAGE = PROJECT / "docs" / "reference" / "model-families.md"


@pytest.mark.slow
def test_the_page_of_families_is_current() -> None:
    """The last line has the versions of the run that wrote it, which may be others."""
    pytest.importorskip("transformers")
    from write_families import families_page

    table, _, versions = PAGE.read_text(encoding="utf-8").rstrip().rpartition("\n\n")
    assert f"{table}\n" == families_page(), f"{PAGE.name} is old: run python docs/write_families.py"
    assert versions.startswith("Run with transformers 5.")


def test_the_page_has_every_family() -> None:
    from explain.adapters.hugging_face.families import FAMILIES

    page = PAGE.read_text(encoding="utf-8")
    assert [kind for kind in FAMILIES if f"\n| `{kind}` |" not in page] == []
