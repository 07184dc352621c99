"""Write docs/reference/explainers.md and config.md from the code and the configs: ``python docs/write_reference.py``.

``docs/meanings.yaml`` holds the rest: the formula and the paper of each explainer, the meaning of config keys whose
YAML file does not explain them, and the dataclasses that give the keys' types.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from clipmapper.help import keys_of
from explain.explainers.base.token_scores import TokenScores

PROJECT = Path(__file__).resolve().parents[1]
REFERENCE, CONFIGS = PROJECT / "docs" / "reference", PROJECT / "configs"
HEAD = "<!-- Written by `python docs/write_reference.py` from the code, configs/ and docs/meanings.yaml. -->\n"
MEANINGS: Any = OmegaConf.to_container(OmegaConf.load(PROJECT / "docs" / "meanings.yaml"))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def types_of(schema: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key of a dataclass, and of the dataclasses in it, with its type."""
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind):
            yield from types_of(kind, f"{prefix}{name}.")
        yield f"{prefix}{name}", re.sub(r"<class '(\w+)'>|typing\.", r"\1", str(kind))


def meaning(group: str, key: str, note: str = "") -> str:
    """Return what a key means: its comment in the YAML file, or its entry in docs/meanings.yaml."""
    return note or str(MEANINGS["keys"].get(f"{group}.{key}") or MEANINGS["keys"].get(key, ""))


def about(path: Path) -> str:
    """Return the comment at the top of a YAML file up to the first command, as one paragraph."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != "# @package _global_"]
    comment = itertools.takewhile(lambda line: re.match("# (?!python)", line), lines)
    return " ".join(line.removeprefix("# ") for line in comment)


def explainers_page() -> str:
    """Return a table for each family of explainers, and their options."""
    families: dict[str, list[list[str]]] = {}
    details = []
    for path in sorted((CONFIGS / "explainer").glob("*.yaml")):
        if "_target_" not in (config := OmegaConf.load(path)):
            continue  # a list of explainers
        explainer, name = instantiate(config), f"`{path.stem}`"
        family = type(explainer).__module__.split(".")[-2]
        known = MEANINGS["explainers"].get(path.stem, {"formula": "", "paper": ""})
        gradients = any(field.endswith("_grad") for field in explainer.needs)
        forward, backward = explainer.passes.forward - 1, explainer.passes.backward - gradients
        passes = f"{forward} forward, {backward} backward" if forward or backward else "none"
        scores_tokens = isinstance(explainer, TokenScores)
        fields = ", ".join(f"`{field}`" for field in (*(() if scores_tokens else ("attention",)), *explainer.needs))
        steps = "" if scores_tokens else " of the last attentions" if explainer.last_only else " of every attention"
        row = [name, known["formula"], f"{fields}{steps}" or "nothing", passes, known["paper"]]
        families.setdefault(family, []).append(row)
        summary = (inspect.getdoc(type(explainer)) or "").split("\n\n")[0].replace("\n", " ")
        details.append(f"### {name}\n\nClass `{type(explainer).__name__}`. {summary}\n")
        details += ["It needs samples of other images, which a run also traces.\n"] if explainer.partners else []
        details += ["Its scores are drawn at random by a seed.\n"] if explainer.seeded else []
        details += [f"It scores only {explainer.modalities[0]} tokens.\n"] if len(explainer.modalities) == 1 else []
        details += ["It is a control: reports compare the other explainers with it.\n"] if explainer.control else []
        options = [(f"`{k}`", f"`{value}`", meaning(path.stem, k, note)) for k, value, note in keys_of(path)]
        details += [table(["option", "default", "meaning"], options)] if options else []
    heads = ["name", "formula", "reads", "passes beyond the trace", "paper"]
    tables = [f"## Family `{family}`\n\n{table(heads, rows)}" for family, rows in sorted(families.items())]
    return "\n".join([HEAD, "# Explainers\n", MEANINGS["explainers_intro"], *tables, "## Options\n", *details])


def key_table(group: str, files: Sequence[Path]) -> str:
    """Return a table of the keys of these files; where their defaults differ, each file's is listed."""
    types = {key: kind for name in MEANINGS["schemas"].get(group, ()) for key, kind in types_of(get_class(name))}
    defaults: dict[str, dict[str, str]] = {}
    notes: dict[str, dict[str, str]] = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        inherited = keys_of(path.with_name("default.yaml")) if "  - default\n" in text else ()
        for key, value, note in (*inherited, *keys_of(path)):
            own = key.removeprefix(f"{group}.")
            if group != "data" or own != key or "# @package _global_" not in text:  # not what it sets in other groups
                defaults.setdefault(own, {})[path.stem] = value
                notes.setdefault(own, {}).update({note: path.stem} if note else {})
    rows = []
    for key, values in defaults.items():
        several = len(notes[key]) > 1
        note = "; ".join(f"{file}: {note}" if several else note for note, file in notes[key].items())
        listed = ", ".join(f"{file}: `{value}`" for file, value in values.items())
        default = (
            f"`{next(iter(values.values()))}`" if len(values) == len(files) and len({*values.values()}) == 1 else listed
        )
        rows.append([f"`{key}`", types.get(key, "Any"), default, meaning(group, key, note)])
    return table(["key", "type", "default", "meaning"], rows) if rows else "It has only keys of config groups.\n"


def config_page() -> str:
    """Return the keys of every command and of every config group."""
    commands = [f"### `{path.stem}`\n\n{key_table(path.stem, [path])}" for path in sorted(CONFIGS.glob("*.yaml"))]
    groups = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.yaml"))
        links = [f"- [{each.stem}](../../configs/{folder.name}/{each.name}) {about(each)}".rstrip() for each in files]
        groups += [f"### `{folder.name}`\n\n{MEANINGS['groups'].get(folder.name, '')}\n", *links, ""]
        if folder.name not in ("explainer", "hydra", "experiment", "debug"):
            groups.append(key_table(folder.name, files))
    intro = [HEAD, "# Configuration\n", MEANINGS["config_intro"]]
    return "\n".join([*intro, "## Keys of the commands\n", *commands, "## Config groups\n", *groups])


PAGES = {"explainers.md": explainers_page, "config.md": config_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/reference/{name}")
