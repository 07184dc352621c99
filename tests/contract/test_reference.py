"""docs/reference is current and complete: generated pages, commands, config files, explainers, files of run folders."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from public import PROJECT, golden
from test_commands import COMMANDS

REFERENCE = PROJECT / "docs" / "reference"
CONFIGS = PROJECT / "configs"


@cache
def writer() -> ModuleType:
    """The module docs/write_reference.py."""
    spec = importlib.util.spec_from_file_location("write_reference", PROJECT / "docs" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def unmentioned(names: Iterable[str], text: str) -> list[str]:
    """Names that are in no code span of a page, alone or as one of its words."""
    spans = {word for span in re.findall(r"`([^`\n]+)`", text) for word in (span, *re.split(r"[\s=,\[\]]+", span))}
    return sorted(set(names) - spans)


@pytest.mark.parametrize("name", ["explainers.md", "config.md"])
def test_a_generated_page_is_current(name: str) -> None:
    assert page(name) == writer().PAGES[name](), f"docs/reference/{name} is old: run python docs/write_reference.py"


def test_every_command_is_described() -> None:
    scripts = {path.stem for path in (PROJECT / "scripts").glob("*.py")}
    assert scripts == set(COMMANDS)
    text = page("commands.md")
    assert unmentioned(scripts, text) == []
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(scripts)
    for name, section in zip(headings, re.split(r"^## \w+$", text, flags=re.MULTILINE)[1:], strict=True):
        assert f"\npython scripts/{name}.py " in section


def test_every_config_file_is_listed() -> None:
    files = [path.relative_to(PROJECT).as_posix() for path in CONFIGS.glob("*/*.yaml")]
    assert [file for file in files if f"](../../{file})" not in page("config.md")] == []
    assert unmentioned((path.stem for path in CONFIGS.glob("*.yaml")), page("config.md")) == []


def test_every_config_key_has_a_meaning() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", page("config.md"), re.MULTILINE)
    assert len(rows) > 100
    assert [key for key, meaning in rows if not meaning.strip()] == []


def test_every_explainer_has_a_formula_and_a_paper() -> None:
    names = {path.stem for path in (CONFIGS / "explainer").glob("*.yaml")} - {"all", "paper"}
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \| .+ \| (.+) \|$", page("explainers.md"), re.MULTILINE)
    assert {name for name, formula, paper in rows if formula.strip() and paper.strip()} == names


def test_every_dataset_is_described() -> None:
    assert unmentioned((path.stem for path in (CONFIGS / "data").glob("*.yaml")), page("data.md")) == []


def held() -> set[str]:
    """Files, columns and keys of the run folders that ``golden/run_folders.json`` holds, as the page spells them."""
    found: set[str] = set()
    for run in golden("run_folders").values():
        found |= {spelled(name) for name in run["files"]}
        for columns in run["parquet"].values():
            found |= set(columns)
        for name, content in (run["json"] | run["checkpoints"]).items():
            found |= set(keys_of(content, by_id=name == "captions.json"))
    return found


def spelled(file: str) -> str:
    """A file as the page spells it, with a placeholder for what differs between runs."""
    file = re.sub(r"^parts/part-#\.\w+\.", "parts/part-NUMBER.TABLE.", file)
    file = re.sub(r"^(predictions|captions|submission)_(val|test)\.", r"\1_SPLIT.", file)
    file = re.sub(r"^(areas|curves)_\w+\.", r"\1_VALUE.", file)
    file = re.sub(r"(?<=_)#", "ID", file)
    return re.sub(r"^((?:areas|curves|pictures|sanity).*)\.(?:csv|md|tex|png|pdf)$", r"\1", file)


def keys_of(content: Any, by_id: bool = False) -> Iterator[str]:
    """All keys of a JSON file's shape; ``by_id`` leaves out the first level."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from () if by_id else (key,)
            yield from keys_of(value)
    elif isinstance(content, list):
        for each in content:
            yield from keys_of(each)


#: Keys that are values of the data or of the config, or that the page describes by a pattern.
PATTERNS = re.compile(r".*(_auc|_ci95)|BLEU-[23]|(accuracy|probability)_ci95|encoder|mapper")
DATA = {"color", "count", "exist", "relation", "relation_color", "relation_shape", "same", "shape", "side", "size"}
DATA |= {"where", "number", "other", "yes/no", "equal", "cider", "numpy", "open_clip_torch", "python", "torch"}
DATA |= {"pytorch-lightning", "model", "weights", "feature_dtype", "batch_size", "name", "layers", "width", "heads"}
DATA |= {"positions", "readout", "start", "dropout", "lr", "warmup_steps", "decay_start", "weight_decay"}


def test_every_file_column_and_key_of_a_run_folder_is_described() -> None:
    text = page("run_folder.md")
    stems = re.sub(r"`((?:areas|curves|pictures|sanity)[^`]*)\.(?:csv|md|tex|png|pdf)`", r"`\1`", text)
    names = {name for name in held() - DATA if not PATTERNS.fullmatch(name)}
    assert len(names) > 80
    assert unmentioned(names, stems) == []


def test_what_is_not_mentioned_is_seen() -> None:
    assert unmentioned(["a", "b", "c", "d"], "`a`, `x=[b,y]` c and `dd`") == ["c", "d"]
    assert spelled("parts/part-#.samples.parquet") == "parts/part-NUMBER.TABLE.parquet"
    assert spelled("pictures/question_#_interaction.pdf") == "pictures/question_ID_interaction"
    assert spelled("areas_accuracy.tex") == "areas_VALUE"
    assert sorted(keys_of({"a": ["list of", {"b": {"c": "text"}}]})) == ["a", "b", "c"]
    assert list(keys_of({"7": {"c": "text"}}, by_id=True)) == ["c"]


def test_an_old_page_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    module = writer()
    meanings = {**module.MEANINGS, "config_intro": "Something else."}
    monkeypatch.setattr(module, "MEANINGS", meanings)
    assert module.PAGES["config.md"]() != page("config.md")
