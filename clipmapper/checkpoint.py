"""Checkpoints: what they hold, how one is found, and how a model comes out of one without unpickling code."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary
from clipmapper.tasks.vqa.answers import AnswerVocabulary

if TYPE_CHECKING:
    from clipmapper.tasks.caption.model import CaptionMapper
    from clipmapper.tasks.vqa.model import VQAMapper

CARD = "clipmapper"
_VOCABULARY = {"vqa": "answers", "caption": "tokens"}  # by task, where a checkpoint keeps what its head names


def card(config: Config, encoder: FrozenClip, vocabulary: AnswerVocabulary | CaptionVocabulary) -> dict[str, Any]:
    """What a checkpoint says of itself: plain values only."""
    about = {
        "task": config.task.name,
        "sees": config.task.sees,
        "data": config.data.name,
        "mapper": asdict(config.mapper),
        "encoder": asdict(config.encoder),
        "encoder_fingerprint": encoder.fingerprint(),
    }
    if isinstance(vocabulary, AnswerVocabulary):
        return about | {"answers": list(vocabulary.answers)}
    assert isinstance(config.task, CaptionTaskConfig)
    return about | {"vocabulary": config.task.vocabulary, "tokens": list(vocabulary.ids)}


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
    if not isinstance(content, dict) or not _is_card(content.get(CARD)):
        raise UserError(f"checkpoint {path}: not one of this project's; give one that scripts/train.py wrote")
    return content


def _is_card(about: Any) -> bool:
    return isinstance(about, dict) and about.keys() >= {
        "task",
        "data",
        "mapper",
        "encoder",
        _VOCABULARY.get(about.get("task", ""), "answers"),
    }


def find_checkpoint(config: Config, given: str | None) -> Path:
    """The file given (or the newest best checkpoint in the folder given), or the newest one that fits the config.

    Raises ``UserError`` where there is none.
    """
    folder = Path(config.paths.runs) / "train" if given is None else Path(given)
    if given is not None and not folder.is_dir():
        return folder
    found = sorted(folder.rglob("best.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found:
        if given is not None or _fits(path, config):
            return path
    wanted = f"task={config.task.name} data={config.data.name} mapper={config.mapper.name}"
    raise UserError(
        f"no trained checkpoint of {wanted} in {folder}; run scripts/train.py first, or give checkpoint=PATH"
    )


def _fits(path: Path, config: Config) -> bool:
    try:
        about = read_checkpoint(path)[CARD]
        check_fits(about, config, path)
    except UserError:
        return False
    return bool(about["data"] == config.data.name)


def _opened(path: Path, config: Config | None, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the checkpoint says of itself, and the weights of the trained part."""
    content = read_checkpoint(path)
    about = content[CARD]
    if config is not None:
        check_fits(about, config, path)
    if about["task"] != task:
        raise UserError(f"checkpoint {path} has task={about['task']}, not {task}: give another checkpoint")
    return about, {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}


def _encoder_of(path: Path, about: dict[str, Any], config: Config | None) -> FrozenClip:
    held = EncoderConfig(**about["encoder"])
    encoder = load_encoder(held if config is None else config.encoder)
    if encoder.fingerprint() != about["encoder_fingerprint"]:
        raise UserError(
            f"checkpoint {path} was trained on other weights of {held.model} than "
            f"encoder.weights={held.weights} gives now; give those weights, or train anew"
        )
    return encoder


def _fill(model: VQAMapper | CaptionMapper, weights: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"checkpoint {path}: its weights do not fit its own description; it is damaged") from error


def check_fits(about: dict[str, Any], config: Config, path: Path) -> None:
    """Raises ``UserError`` where the config asks for another task, mapper or encoder than the checkpoint holds."""
    wanted = {
        "task": config.task.name,
        "sees": config.task.sees,
        **{f"mapper.{key}": value for key, value in asdict(config.mapper).items()},
        "encoder.model": config.encoder.model,
    }
    if isinstance(config.task, CaptionTaskConfig):
        wanted["task.vocabulary"] = config.task.vocabulary
    held = {
        "task": about["task"],
        "sees": about.get("sees"),
        **{f"mapper.{key}": value for key, value in about["mapper"].items()},
        "encoder.model": about["encoder"]["model"],
        "task.vocabulary": about.get("vocabulary"),
    }
    differing = [key for key in wanted if wanted[key] != held.get(key) and key != "mapper.dropout"]
    if differing:
        key = differing[0]
        raise UserError(
            f"checkpoint {path} has {key}={held.get(key)}, the config {key}={wanted[key]}: "
            f"give {key}={held.get(key)} or another checkpoint"
        )
