"""SPICE (Anderson et al., 2016), computed by pycocoevalcap's Java program; its language models must be installed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from clipmapper.metrics.java.process import PACKAGE, NotAvailable, run_java

JAR = PACKAGE / "spice" / "spice-1.0.jar"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")  #: files of the language models
MODELS_FOLDER = JAR.parent / "lib"  #: where they are
ADDRESS = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"  #: the archive that contains them
_NEWEST_JAVA = 14  # SPICE writes its results with Java's JavaScript engine, which Java 15 removed
_SECONDS = 3 * 3600.0  # time limit: SPICE parses every reference


def spice_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], jar: Path = JAR
) -> tuple[float, list[float]]:
    """Return the SPICE F-score of all tokenised candidates (the mean), and of each.

    Args:
        candidates: Tokenised candidate captions.
        references: Tokenised references of each candidate.
        jar: The SPICE program; its language models are in the folder ``lib`` next to it.

    Raises:
        NotAvailable: Java is missing or too new, the models are missing, or the program fails.
    """
    version = _java_version()
    if missing := [name for name in MODELS if not (jar.parent / "lib" / name).is_file()]:
        raise NotAvailable(
            f"{' and '.join(missing)} missing; copy them from stanford-corenlp-full-2015-12-09.zip "
            f"(nlp.stanford.edu/software) into {jar.parent / 'lib'}"
        )
    if version > _NEWEST_JAVA:
        raise NotAvailable(f"SPICE does not run on Java {version}; put a Java 8 to {_NEWEST_JAVA} first in PATH")
    pairs = enumerate(zip(candidates, references, strict=True))
    entries = [{"image_id": i, "test": candidate, "refs": list(refs)} for i, (candidate, refs) in pairs]
    try:
        with TemporaryDirectory() as folder:
            given, answer = Path(folder, "captions.json"), Path(folder, "scores.json")
            given.write_text(json.dumps(entries), encoding="utf-8")
            run_java("-Xmx8G", "-jar", str(jar), str(given), "-out", str(answer), "-silent", timeout=_SECONDS)
            scored = json.loads(answer.read_bytes())
    except OSError as error:
        raise NotAvailable(
            f"{error.filename or 'a temporary folder'}: {error.strerror or error}; set TMPDIR to a "
            "writable folder with free space"
        ) from error
    except ValueError:
        raise NotAvailable("SPICE wrote no JSON; install another Java runtime") from None
    try:
        found = {entry["image_id"]: float(entry["scores"]["All"]["f"]) for entry in scored}
        each = [found[i] for i in range(len(candidates))]
    except (KeyError, TypeError, ValueError):
        raise NotAvailable("SPICE did not score every caption; install another Java runtime") from None
    return sum(each) / len(each), each


def _java_version() -> int:
    """Return the major version of Java, 0 if it is unknown."""
    shown = run_java("-version").stderr.decode(errors="replace")
    found = re.search(r'version "(?:1\.)?(\d+)', shown)  # version 1.8 is Java 8
    return int(found[1]) if found else 0
