"""Command that gets what a run needs from elsewhere, so that it runs without a network afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING, DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.data import VQAv2HubConfig
from clipmapper.config.schema import Config, HuggingFaceConfig, ModelConfig, OpenClipConfig
from clipmapper.errors import UserError

if TYPE_CHECKING:
    from clipmapper.data.needed import Needed


@dataclass
class FetchConfig(Config):
    """The config of the fetch command, with the keys of a run of CLIPmapper."""


@dataclass
class FetchModelConfig(FetchConfig):
    """The config of the fetch command with another model."""

    model: ModelConfig = MISSING


@command("fetch")
def main(config: DictConfig, run: Path) -> None:
    """Get and check everything, and print what is there and what is missing; ``fetched.json`` has the same."""
    checked: FetchConfig = typed(config, FetchModelConfig if config.get("model") else FetchConfig)
    from clipmapper.console import print_table
    from clipmapper.files import write_json

    parts = list(_parts(checked))
    states = ["there" if each.there else "missing, optional" if each.optional else "missing" for each in parts]
    rows = [[each.what, state, each.place] for each, state in zip(parts, states, strict=True)]
    print_table("What this run needs from elsewhere", ["what", "state", "place"], rows, text=(0, 1, 2))
    missing = [each for each in parts if not each.there]
    for each in missing:
        print(f"missing: {each.what}, {each.place}: {each.advice}")
    write_json(run / "fetched.json", {"parts": [vars(each) for each in parts]})
    if needed := [each for each in missing if not each.optional]:
        raise UserError(
            f"{len(needed)} of {len(parts)} parts are missing, the first is: {needed[0].what}; get them as the lines "
            "above say, and run this command again"
        )
    print("Everything is there: with HF_HUB_OFFLINE=1 in the environment, the commands run without a network.")


def _parts(config: FetchConfig) -> Iterator[Needed]:
    from clipmapper.data.needed import needed_files

    encoder = config.encoder
    yield _got(f"encoder {encoder.model}", _place(encoder.model, encoder.weights), lambda: _encoder(config))
    if isinstance(config, FetchModelConfig):
        yield _model(config.model)
    if isinstance(config.data, VQAv2HubConfig) and not Path(config.data.root).exists():
        from clipmapper.data.datasets import load_data

        yield _got(f"dataset {config.data.root}", "the hub's cache", lambda: load_data(config.data))
    yield from needed_files(config.data)
    if config.task.name == "caption":
        yield from _java()


def _encoder(config: FetchConfig) -> None:
    from clipmapper.encoder.load import check_encoder, load_encoder

    check_encoder(config.encoder, generates=config.task.name == "caption")
    load_encoder(config.encoder)


def _model(model: ModelConfig) -> Needed:
    from clipmapper.any_model.load import load_named

    name, place = model.name, ""
    if isinstance(model, HuggingFaceConfig):
        name, place = model.path, _place(model.path, None)
    elif isinstance(model, OpenClipConfig):
        name, place = model.architecture, _place(model.architecture, model.weights)
    return _got(f"model {name}", place, lambda: load_named(model))


def _place(name: str, weights: str | None) -> str:
    """Return where a model's files are."""
    if "embedded" in (name, weights):
        return "part of the package"
    local = [Path(each.removeprefix("local-dir:")) for each in (weights, name) if each is not None]
    return next((str(each) for each in local if each.exists()), "the hub's cache")


def _got(what: str, place: str, get: Callable[[], object]) -> Needed:
    from clipmapper.data.needed import Needed

    try:
        get()
    except UserError as error:
        return Needed(what, place, False, str(error))
    return Needed(what, place, True)


def _java() -> Iterator[Needed]:
    from clipmapper.data.needed import Needed
    from clipmapper.metrics.java.spice import ADDRESS, MODELS, MODELS_FOLDER

    java = shutil.which("java")
    yield Needed("METEOR", java or "java", java is not None, "install a Java runtime", optional=True)
    for name in MODELS:
        place = MODELS_FOLDER / name
        yield Needed("SPICE", str(place), place.is_file(), f"{ADDRESS}, and Java 8 to 14", optional=True)
