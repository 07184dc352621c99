"""Checkpoints: what they hold, how one is found, and how weights come out of one without unpickling code.

A checkpoint carries a card of plain values: what was trained, on what. Models are built from it by the tasks.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder, use
from clipmapper.errors import UserError

CARD = "clipmapper"
_FIELDS = {"task", "data", "mapper", "encoder"}
Model = TypeVar("Model", bound=nn.Module)


def card(config: Config, encoder: FrozenClip) -> dict[str, Any]:
    """What every checkpoint says of itself; tasks add what the outputs of their head mean."""
    return {
        **config.task.identity(),
        "data": config.data.name,
        "mapper": asdict(config.mapper),
        "encoder": asdict(config.encoder),
        "encoder_fingerprint": encoder.fingerprint(),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's content; raises ``UserError`` where it is missing, damaged, or another program's."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path}: no such file; train first, or give checkpoint=PATH") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"checkpoint {path}: cannot be read ({type(error).__name__}); give one that train wrote"
        ) from error
    about = content.get(CARD) if isinstance(content, dict) else None
    if not isinstance(about, dict) or not about.keys() >= _FIELDS:
        raise UserError(f"checkpoint {path}: not one of this project's; give one that scripts/train.py wrote")
    return content


def newest_checkpoint(folder: Path, fits: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """The newest ``best.ckpt`` below a folder that ``fits``, or None."""
    found = sorted(folder.rglob("best.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next(filter(fits, found), None)


def find_checkpoint(config: Config, given: str | None) -> Path:
    """The file given (or the newest best checkpoint in the folder given), or the newest one that fits the config.

    Raises ``UserError`` where there is none.
    """
    folder = Path(config.paths.runs) / "train" if given is None else Path(given)
    if given is not None and not folder.is_dir():
        return folder
    found = newest_checkpoint(folder, lambda path: given is not None or _fits(path, config))
    if found is None:
        wanted = f"task={config.task.name} data={config.data.name} mapper={config.mapper.name}"
        raise UserError(
            f"no trained checkpoint of {wanted} in {folder}; run scripts/train.py first, or give checkpoint=PATH"
        )
    return found


def load_found(config: Config, given: str | None, load: Callable[[Path, Config], Model]) -> tuple[Model, Path]:
    """The model of :func:`find_checkpoint` on the trainer's kind of device, and its checkpoint."""
    device = use(config)
    path = find_checkpoint(config, given)
    return load(path, config).to(device), path


def open_checkpoint(
    path: Path, config: Config | None, task: str, *needs: str
) -> tuple[dict[str, Any], FrozenClip, dict[str, Any]]:
    """A checkpoint's card, the encoder that it was trained on, and the weights of the trained part.

    Args:
        path: The file.
        config: Its mapper and encoder must be the checkpoint's; None: anything fits.
        task: The task that the checkpoint must be of.
        needs: What the task adds to the card.

    Raises:
        UserError: naming what differs, also where the encoder's weights are no longer the same.
    """
    content = read_checkpoint(path)
    about = content[CARD]
    if config is not None:
        check_fits(about, config, path)
    if about["task"] != task:
        raise UserError(f"checkpoint {path} has task={about['task']}, not {task}: give another checkpoint")
    if not about.keys() >= set(needs):
        raise UserError(f"checkpoint {path}: not one of this project's; give one that scripts/train.py wrote")
    weights = {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}
    return about, _encoder_of(path, about, config), weights


def _encoder_of(path: Path, about: dict[str, Any], config: Config | None) -> FrozenClip:
    held = EncoderConfig(**about["encoder"])
    encoder = load_encoder(held if config is None else config.encoder)
    if encoder.fingerprint() != about["encoder_fingerprint"]:
        raise UserError(
            f"checkpoint {path} was trained on other weights of {held.model} than "
            f"encoder.weights={held.weights} gives now; give those weights, or train anew"
        )
    return encoder


def fill(model: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Gives a model its weights; raises ``UserError`` where they are another model's."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"checkpoint {path}: its weights do not fit its own description; it is damaged") from error


def check_fits(about: dict[str, Any], config: Config, path: Path) -> None:
    """Raises ``UserError`` where the config asks for another task, mapper or encoder than the checkpoint holds."""
    wanted: dict[str, Any] = {f"mapper.{key}": value for key, value in asdict(config.mapper).items()}
    held: dict[str, Any] = {f"mapper.{key}": value for key, value in about["mapper"].items()}
    wanted["encoder.model"], held["encoder.model"] = config.encoder.model, about["encoder"]["model"]
    identity = config.task.identity()
    differing = [key for key, value in identity.items() if value != about.get(key)]
    differing += [key for key in wanted if wanted[key] != held.get(key) and key != "mapper.dropout"]
    if differing:
        key = differing[0]
        name = key if key in (*wanted, "task", "sees") else f"task.{key}"
        old, new = {**held, **about}.get(key), {**wanted, **identity}[key]
        raise UserError(
            f"checkpoint {path} has {name}={old}, the config {name}={new}: give {name}={old} or another checkpoint"
        )


def _fits(path: Path, config: Config) -> bool:
    try:
        about = read_checkpoint(path)[CARD]
        check_fits(about, config, path)
    except UserError:
        return False
    return bool(about["data"] == config.data.name)
