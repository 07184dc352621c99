"""The versions that are stored with the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipmapper.files import versions


def test_without_git_the_versions_have_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = versions()
    assert {"python", "torch", "numpy"} < set(found)
    assert "commit" not in found
