"""Executable scripts for tests, and a mark for tests that need Java."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime")


def program(path: Path, body: str) -> Path:
    """Write an executable Python script and return its path."""
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
