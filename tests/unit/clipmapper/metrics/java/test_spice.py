"""Tests of SPICE with a fake program, since its models are not installed everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import program

from clipmapper.metrics.java.process import NotAvailable
from clipmapper.metrics.java.spice import JAR, spice_scores

FAKE_SPICE = """
import json, sys
if "-version" in sys.argv:
    sys.exit(print('openjdk version "{version}" 2020-01-01', file=sys.stderr))
given, answer = sys.argv[sys.argv.index("-out") - 1], sys.argv[sys.argv.index("-out") + 1]
entries = json.load(open(given))
scores = [
    {"image_id": e["image_id"], "scores": {"All": {"f": len(e["test"].split()) / len(e["refs"])}}}
    for e in entries
]
json.dump(scores[::-1], open(answer, "w"))
"""


@pytest.fixture
def spice_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "lib" / name).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("version", ["1.8.0_312", "11.0.2", "14"])
def test_spice_runs_if_its_models_are_installed(spice_models: Path, version: str) -> None:
    program(spice_models / "java", FAKE_SPICE.replace("{version}", version))
    assert spice_scores(["a b", "a b c"], [["x"], ["x", "y"]], spice_models / JAR.name) == (1.75, [2, 1.5])


def test_spice_names_the_java_versions_it_runs_on(spice_models: Path) -> None:
    program(spice_models / "java", FAKE_SPICE.replace("{version}", "17.0.15"))
    with pytest.raises(NotAvailable, match=r"does not run on Java 17; put a Java 8 to 14 first in PATH"):
        spice_scores(["a"], [["b"]], spice_models / JAR.name)


def test_spice_names_the_missing_model(spice_models: Path) -> None:
    program(spice_models / "java", FAKE_SPICE.replace("{version}", "1.8.0"))
    (spice_models / "lib" / "stanford-corenlp-3.6.0-models.jar").unlink()
    with pytest.raises(NotAvailable, match=r"^stanford-corenlp-3.6.0-models.jar missing; copy them from"):
        spice_scores(["a"], [["b"]], spice_models / JAR.name)


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        ("pass", "No such file or directory; set TMPDIR"),
        ("open(answer, 'w').write('Error')", "SPICE wrote no JSON"),
        ("json.dump(scores[1:], open(answer, 'w'))", "SPICE did not score every caption"),
        ("json.dump({'scores': 1}, open(answer, 'w'))", "SPICE did not score every caption"),
    ],
)
def test_a_spice_that_writes_something_else_is_not_available(spice_models: Path, instead: str, message: str) -> None:
    fake = FAKE_SPICE.replace("{version}", "1.8.0").replace('json.dump(scores[::-1], open(answer, "w"))', instead)
    program(spice_models / "java", fake)
    with pytest.raises(NotAvailable, match=message):
        spice_scores(["a", "b"], [["b"], ["c"]], spice_models / JAR.name)


def test_spice_without_a_temporary_folder_is_not_available(spice_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(spice_models / "java", FAKE_SPICE.replace("{version}", "1.8.0"))
    monkeypatch.setattr("tempfile.tempdir", str(spice_models / "missing"))
    with pytest.raises(NotAvailable, match=r"missing/.*; set TMPDIR to a writable folder with free space"):
        spice_scores(["a"], [["b"]], spice_models / JAR.name)
