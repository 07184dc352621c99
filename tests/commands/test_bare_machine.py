"""A machine without a home folder, a cache, Git and Java gives the same results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_runs import PROJECT, finish

NOWHERE = "/proc/none"  # no folder can be made here, also not by root
HOME = dict.fromkeys(["HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"], NOWHERE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="it needs a folder that cannot be written")
def test_explain_needs_nothing_but_its_run_folder(tmp_path: Path) -> None:
    scene, question = PROJECT / "docs" / "pictures" / "scene.png", "what color is the circle?"
    line = [f"image={scene}", f"question={question}", "mapper=b", "threads=1"]
    found = {}
    for name, environment in (("usual", {}), ("bare", {**HOME, "PATH": str(tmp_path)})):
        status, _, err = finish(
            "explain",
            [*line, f"paths.root={tmp_path / name}", f"hydra.run.dir={tmp_path / name / 'run'}"],
            **{**os.environ, **environment},
        )
        assert status == 0, err
        assert [each for each in err.splitlines() if " is running: " not in each] == []
        pictures = sorted((tmp_path / name / "run" / "pictures").glob("*.png"))
        found[name] = [(path.name, path.read_bytes()) for path in pictures]
    assert found["usual"]
    assert found["usual"] == found["bare"]
