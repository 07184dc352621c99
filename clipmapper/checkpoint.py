"""Checkpoints: what they contain, and how they are read without running pickled code.

Every checkpoint contains a card: a dictionary of plain values that describes the model and its training data. The tasks
build their models from the card.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.encoder.folders import is_folder
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.finite import check_finite
from clipmapper.storage.card import CARD, check_content, check_sizes
from clipmapper.training.checkpoint_file import read_checkpoint_file
from clipmapper.weights import SUFFIX, read_weights


def card(config: Config, encoder: FrozenClip) -> dict[str, Any]:
    """Return the part of a checkpoint's card that all tasks share; tasks add the meaning of their head's outputs."""
    return {
        **config.task.identity(),
        "data": config.data.name,
        "mapper": asdict(config.mapper),
        "encoder": asdict(config.encoder),
        "encoder_fingerprint": encoder.fingerprint(),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, or of a weights file (:mod:`clipmapper.weights`).

    Raises:
        UserError: The file is missing or damaged, another program wrote it, or its weights are no numbers.
    """
    if path.suffix == SUFFIX:
        try:
            content: dict[str, Any] = dict(zip((CARD, "state_dict"), read_weights(path), strict=True))
        except FileNotFoundError:
            raise UserError(f"checkpoint {path}: no such file; train first, or give checkpoint=PATH") from None
    else:
        content = read_checkpoint_file(path)
    if CARD not in content:
        raise UserError(f"checkpoint {path} was not written by this project; give one that scripts/train.py wrote")
    check_content(content, path)
    check_finite(content["state_dict"].items(), f"checkpoint {path}")
    return content


def open_checkpoint(
    path: Path, config: Config | None, task: str, *needs: str
) -> tuple[dict[str, Any], FrozenClip, dict[str, Any]]:
    """Read a checkpoint and load the encoder it was trained with.

    Args:
        path: The checkpoint file.
        config: The config whose task, mapper and encoder must agree with the checkpoint; None: no check.
        task: The task that the checkpoint must have.
        needs: Keys that the task requires in the card.

    Returns:
        The card, the frozen encoder, and the weights of the trained part by name.

    Raises:
        UserError: The checkpoint cannot be read, differs from the config (the message names the key), or was trained
            with other encoder weights than the ones loaded now.
    """
    content = read_checkpoint(path)
    about = content[CARD]
    if config is not None:
        check_fits(about, config, path)
    if about["task"] != task:
        raise UserError(f"checkpoint {path} has task={about['task']}, not {task}: give another checkpoint")
    if missing := set(needs) - about.keys():
        raise UserError(f"checkpoint {path}: {CARD}.{min(missing)} is missing; give one that scripts/train.py wrote")
    check_sizes(about, content["state_dict"], path)
    weights = {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}
    return about, _encoder_of(path, about, config), weights


def _encoder_of(path: Path, about: dict[str, Any], config: Config | None) -> FrozenClip:
    held = EncoderConfig(**about["encoder"])
    encoder = load_encoder(held if config is None else config.encoder)
    if encoder.fingerprint() != about["encoder_fingerprint"]:
        now = f"encoder.weights={held.weights}"
        if held.weights is None:  # those of a folder
            now = f"encoder.model={(config.encoder if config else held).model}"
        raise UserError(
            f"checkpoint {path} was trained on other weights of {held.model} than {now} gives now; give those weights, "
            "or train again"
        )
    return encoder


def fill(model: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Load a checkpoint's weights into a model.

    Raises:
        UserError: The weights do not fit the model, so the checkpoint is damaged.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"checkpoint {path}: its weights do not fit its own description; it is damaged") from error


def check_fits(about: dict[str, Any], config: Config, path: Path) -> None:
    """Raise UserError if the config's task, mapper or encoder differs from the checkpoint's (except for dropout)."""
    expected: dict[str, Any] = {f"mapper.{key}": value for key, value in asdict(config.mapper).items()}
    held: dict[str, Any] = {f"mapper.{key}": value for key, value in about["mapper"].items()}
    trained, chosen = about["encoder"]["model"], config.encoder.model
    if not (is_folder(chosen) and "/" in trained):  # a folder may have moved; its content is compared when it is loaded
        expected["encoder.model"], held["encoder.model"] = chosen, trained
    expected["encoder.precision"] = config.encoder.precision
    held["encoder.precision"] = about["encoder"].get("precision", "float32")
    identity = config.task.identity()
    differing = [key for key, value in identity.items() if value != about.get(key)]
    differing += [key for key in expected if expected[key] != held.get(key) and key != "mapper.dropout"]
    if differing:
        key = differing[0]
        name = key if key in (*expected, "task", "sees") else f"task.{key}"
        old, new = {**held, **about}.get(key), {**expected, **identity}[key]
        raise UserError(
            f"checkpoint {path} has {name}={old}, the config {name}={new}: give {name}={old} or another checkpoint"
        )
