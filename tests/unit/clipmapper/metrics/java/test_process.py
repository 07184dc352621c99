"""Tests with a missing, failing or hanging Java; fake programs replace it, so no Java is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import program
from scored_captions import CANDIDATES, REFERENCES, WITHOUT_JAVA

from clipmapper.metrics.captions import score_captions
from clipmapper.metrics.java.meteor import METEOR
from clipmapper.metrics.java.process import NotAvailable, run_java


def test_without_java_the_other_metrics_are_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    METEOR.close()  # it may still run from another test
    scores = score_captions(CANDIDATES, REFERENCES)
    assert {name: round(value, 4) for name, value in scores.corpus.items()} == WITHOUT_JAVA
    assert scores.notes["METEOR"] == scores.notes["SPICE"] == "not available: no java found; install a Java runtime"
    assert scores.notes["tokens"].startswith("PTB tokenizer not available: no java found")


def test_a_failing_java_becomes_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complaint = "Picked up options\\nUnable to locate a Java Runtime.\\nPlease visit"
    program(tmp_path / "java", f"import sys\nprint('{complaint}', file=sys.stderr)\nsys.exit(1)")
    monkeypatch.setenv("PATH", str(tmp_path))
    METEOR.close()  # it may still run from another test
    scores = score_captions(CANDIDATES, REFERENCES)
    assert set(scores.notes) == {"tokens", "METEOR", "SPICE"}
    assert all("Unable to locate a Java Runtime" in note and "\n" not in note for note in scores.notes.values())


@pytest.mark.parametrize(
    "says", ["pass", "print('a')", "sys.stdout.buffer.write(bytes(range(256)) * 9)", "os.kill(os.getpid(), 9)"]
)
def test_a_java_that_says_something_else_becomes_a_note(
    says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "java", f"import os, sys\n{says}")
    monkeypatch.setenv("PATH", str(tmp_path))
    METEOR.close()
    scores = score_captions(CANDIDATES, REFERENCES)
    assert {name: round(value, 4) for name, value in scores.corpus.items()} == WITHOUT_JAVA
    assert set(scores.notes) == {"tokens", "METEOR", "SPICE"}
    assert all("\n" not in note and "; " in note for note in scores.notes.values())


def test_without_a_temporary_folder_the_other_metrics_are_computed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "java", "pass")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    METEOR.close()
    scores = score_captions(CANDIDATES, REFERENCES)
    assert {name: round(value, 4) for name, value in scores.corpus.items()} == WITHOUT_JAVA
    assert "set TMPDIR to a writable folder" in scores.notes["METEOR"]


def test_a_hanging_java_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "java", "import time\ntime.sleep(60)")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match=r"did not end within 0\.5 s"):
        run_java("-version", timeout=0.5)
