"""The page: the sections of all runs in the order of the commands, their findings, and how each run was made."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clipmapper.errors import UserError
from clipmapper.files import write_atomic
from clipmapper.places import real_path
from perturbation.page import literature, localising, perturbing, sections
from perturbation.page.numbers import NBSP, counted
from perturbation.page.runs import Run
from perturbation.page.view import Section, Table

PAGE = "report.html"
LIMIT = 8_000_000  # bytes
#: Titles of the groups of sections, by the commands of each group, in the order of the page.
GROUPS = {
    "Models and data": ("train", "train_llava", "evaluate"),
    "Explanations": ("explain",),
    "Perturbation tests": ("perturb", "pool_seeds"),
    "Localisation": ("evaluate_explanations",),
    "Randomisation": ("sanity_check",),
    "Costs": ("benchmark", "pretrain_clip"),
}
#: What a file of another version of the project, or an edited file, raises when it is read.
FOREIGN = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Entry:
    """A run on the page."""

    number: int
    run: Run
    title: str  #: the name of the run on the page
    model: str = ""  #: the model in words; empty if the config has none
    versions: str = ""  #: the recorded versions of the software, as one line
    section: Section | None = None  #: None if the run has no results
    problem: str = ""  #: why it has none


def make_page(runs: Sequence[Run], samples: int, root: Path) -> tuple[str, dict[Path, str]]:
    """Make the HTML page of the runs.

    Args:
        runs: The runs, in the order in which they are numbered.
        samples: The number of explained samples to show of each run.
        root: The folder of runs, relative to which their folders are named.

    Returns:
        The page, and why a run is not shown, by its folder.

    Raises:
        UserError: The page would be larger than ``LIMIT``.
    """
    entries = [_entry(number, run, samples) for number, run in enumerate(_in_order(runs), 1)]
    groups = {
        title: [entry for entry in entries if entry.section is not None and entry.run.command in commands]
        for title, commands in GROUPS.items()
    }
    environment = Environment(
        loader=PackageLoader("perturbation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["units"] = lambda text: text.replace(" %", f"{NBSP}%")  # no line break before the unit
    script, _, _ = environment.loader.get_source(environment, "page.js")  # type: ignore[union-attr]
    page = environment.get_template("page.html").render(
        entries=entries,
        groups={title: own for title, own in groups.items() if own},
        shared={"Models and data": _beside_the_literature(entries), "Perturbation tests": _shared(entries)},
        missing=[entry for entry in entries if entry.section is None],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        place=partial(_place, root=root),
    )
    if (size := len(page.encode("utf-8", "replace"))) > LIMIT:
        raise UserError(
            f"the page of these {len(runs)} runs would have {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}: "
            "give fewer runs, or fewer samples=…"
        )
    return page, {entry.run.folder: entry.problem for entry in entries if entry.problem}


def write_page(runs: Sequence[Run], samples: int, root: Path, folder: Path) -> tuple[Path, dict[Path, str]]:
    """Write the page of the runs (:func:`make_page`) to ``report.html`` in a folder.

    Returns:
        The file, and why a run is not shown, by its folder.
    """
    page, problems = make_page(runs, samples, root)
    write_atomic(folder / PAGE, page.encode("utf-8", "replace"))
    return folder / PAGE, problems


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in the order of the page; runs of an unknown command come last."""
    order = [command for commands in GROUPS.values() for command in commands]
    return sorted(runs, key=lambda run: order.index(run.command) if run.command in order else len(order))


def _entry(number: int, run: Run, samples: int) -> Entry:
    plain = Entry(number, run, f"Run {number}: {run.command or 'unknown command'}")
    if run.problem:
        return replace(plain, problem=run.problem)
    try:
        content, settings = run.result(), run.settings
        if run.command == "pool_seeds":
            content, settings = content["runs"][0], content["runs"][0]["config"]
        elif settings.get("predictions") or run.command in GROUPS["Costs"]:
            settings = {}  # the config names a model that the command did not use
        versions = content.get("versions", {}) if isinstance(content, dict) else {}
        return replace(
            plain,
            title=plain.title + _about(settings),
            model=_model(settings),
            versions=", ".join(f"{name} {version}" for name, version in versions.items()),
            section=_section(run, samples),
        )
    except FOREIGN as error:
        problem = f"not shown: its files have another format than this version writes ({type(error).__name__}: {error})"
        return replace(plain, problem=problem)


def _about(settings: dict[str, Any]) -> str:
    """Return task, dataset and mapper in parentheses, after a space; empty if the config has none of them."""
    names = [settings["task"]["name"]] if "task" in settings else []
    names += [_data(settings)] if "data" in settings else []
    names += [f"mapper {settings['mapper']['name']}"] if "mapper" in settings else []
    names += [str(settings["model"]["name"])] if "model" in settings else []
    return f" ({', '.join(names)})" if names else ""


def _data(settings: dict[str, Any]) -> str:
    return "own image" if settings.get("image") else str(settings["data"]["name"])


def _model(settings: dict[str, Any]) -> str:
    if "model" in settings:
        left_out = {"max_new_tokens"}
        named = {key: value for key, value in settings["model"].items() if value is not None and key not in left_out}
        layers = named.pop("layers", None)
        return ", ".join([*map(str, named.values()), *([f"layers {layers}"] if layers else [])])
    if "decoder" in settings:
        sizes = f"{counted(settings['decoder']['layers'], 'layer')}, {counted(settings['decoder']['heads'], 'head')}"
        return f"LLaVA: the vision tower of the embedded encoder, a projector, and a Llama decoder ({sizes})"
    if not {"mapper", "encoder"} <= settings.keys():
        return ""
    mapper, encoder = settings["mapper"], settings["encoder"]
    sizes = f"{counted(mapper['layers'], 'layer')}, width {mapper['width']}, {counted(mapper['heads'], 'head')}"
    return f"mapper {mapper['name']} ({sizes}) on the frozen encoder {encoder['model']}, weights {encoder['weights']}"


def _section(run: Run, samples: int) -> Section:
    if run.command == "explain":
        return sections.explanations(run, samples)
    makers: dict[str, Any] = {
        "train": sections.scores,
        "train_llava": sections.generation,
        "evaluate": sections.scores,
        "perturb": perturbing.section,
        "pool_seeds": perturbing.section,
        "evaluate_explanations": localising.section,
        "sanity_check": sections.randomisation,
        "benchmark": sections.costs,
        "pretrain_clip": sections.costs,
    }
    found: Section = makers[run.command](run)
    return found


def _shared(entries: Sequence[Entry]) -> list[Table]:
    """Return the tables that several perturbation runs share, and the paper's findings beside them."""
    runs = {f"run {entry.number}": entry.run for entry in entries if entry.section and entry.run.command == "perturb"}
    return [*perturbing.shared_tables(runs), *literature.findings_table(runs)]


def _beside_the_literature(entries: Sequence[Entry]) -> list[Table]:
    """Return the paper's tables of accuracies and caption scores with the models of this page."""
    commands = GROUPS["Models and data"]
    runs = {f"run {entry.number}": entry.run for entry in entries if entry.section and entry.run.command in commands}
    return literature.tables(runs)


def _place(folder: Path, root: Path) -> str:
    """Return the name of a run folder, relative to the folder of runs if it is below it."""
    folder, root = real_path(folder), real_path(root)
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.as_posix()
