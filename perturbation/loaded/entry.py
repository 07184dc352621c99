"""``clipmapper.load``: the model of a run folder, a checkpoint, or a name."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from clipmapper.any_model.load import load_hugging_face
from clipmapper.api import load_checkpoint
from clipmapper.choice import Candidate, newest_checkpoint
from clipmapper.config.run_folder import CONFIG
from clipmapper.errors import UserError
from clipmapper.files import read_bytes, read_json
from clipmapper.pretrained import FOLDER, LLAVA
from clipmapper.storage.card import Metrics
from clipmapper.storage.validation import check
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.weights import SUFFIX
from explain.sample.hugging_face import CLASSIFIERS, class_labels
from perturbation.loaded.model import Loaded

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"  # the folder of a run's checkpoints
_HUB = re.compile(r"[\w.-]+/[\w.-]+")  # a name on the Hugging Face hub


def load(source: str | Path) -> Loaded:
    """Load a model, to explain its answers and to test the explanations.

    Args:
        source: A model of the package: ``vqa-a``, ``vqa-b``, ``caption-a``, ``caption-b`` or ``shapes-llava``; a run
            folder of ``scripts/train.py`` or ``scripts/train_llava.py``; a checkpoint file; or the folder of a model of
            ``transformers``, or its name on the Hugging Face hub.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: There is no such model, or its files are damaged.
    """
    name = str(source)
    path = shipped().get(name, Path(source))
    if path.is_dir():
        return _from_folder(name, path)
    if path.is_file():
        return _from_checkpoint(name, path)
    if _HUB.fullmatch(name):
        return _from_hugging_face(name, name)
    close = difflib.get_close_matches(name, shipped(), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"{name}: no such run folder, checkpoint or model; {hint}the package contains {', '.join(shipped())}"
    )


def shipped() -> dict[str, Path]:
    """Return the files and folders of the models that the package contains, by name."""
    return {path.stem: path for path in [*sorted(FOLDER.glob(f"*{SUFFIX}")), LLAVA]}


def _from_folder(name: str, folder: Path) -> Loaded:
    """Load a model of ``transformers``, or the model that a training run left in its folder."""
    if (folder / "config.json").is_file():
        known = {"data": {"name": "shapes"}} if folder == LLAVA else {}
        return _from_hugging_face(name, str(folder), known)
    if (folder / LLAVA.name / "config.json").is_file():
        return _from_hugging_face(name, str(folder / LLAVA.name), _run_config(folder))
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(
            f"{name}: neither a run folder of scripts/train.py with a checkpoint, nor a folder of a model of "
            "transformers, with its config.json"
        )
    return _from_checkpoint(name, checkpoint)


def _from_checkpoint(name: str, path: Path) -> Loaded:
    candidate = Candidate(path)
    card, model = candidate.card, load_checkpoint(path)
    if candidate.damage:
        warnings.warn(f"accuracy is not known: {candidate.damage}", stacklevel=4)
    known: dict[str, Any] = {
        "task": {"name": card["task"], **{key: card[key] for key in ("sees", "vocabulary") if key in card}},
        "data": {"name": card["data"]},
        **{key: card[key] for key in ("mapper", "encoder", "seed", "optim", "steps") if key in card},
    }
    of_run = _run_config(candidate.run) if path.parent.name == CHECKPOINTS else {}
    if isinstance(model, CLIPMapperVQA):
        classes = model.answers
    else:
        classes = tuple(text for number in model.vocabulary.ids if (text := model.vocabulary.text([number])))
    return Loaded(
        name=name,
        task=card["task"],
        model=model,
        processor=None,
        classes=classes,
        config={**known, **of_run},
        metrics=candidate.metrics,
        path=str(path),
    )


def _from_hugging_face(name: str, path: str, known: Mapping[str, Any] | None = None) -> Loaded:
    found = load_hugging_face(path)
    config: Any = found.model.config
    classifies = config.model_type in CLASSIFIERS
    return Loaded(
        name=name,
        task="similarity" if found.dual else "classification" if classifies else "generation",
        model=found.model,
        processor=found.processor,
        classes=tuple(class_labels(found.model)) if classifies else (),
        config={"model": config.to_dict(), **(known or {})},
        metrics=_metrics(Path(path)),
        path=path,
    )


def _metrics(folder: Path) -> dict[str, Any]:
    """Return the scores by split of a folder of a model; empty if there are none."""
    file = folder / METRICS
    if not file.is_file():
        return {}
    content: dict[str, Any] = read_json(file)
    check(Metrics, content, str(file), "remove it, or write it again")
    return content


def _run_config(run: Path) -> dict[str, Any]:
    """Return the config of a training run; empty if it has none."""
    try:
        text = read_bytes(run / CONFIG, "text").decode()
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{run / CONFIG}: damaged ({' '.join(str(error).split())}); restore or remove it") from error
    if not isinstance(content, dict):
        raise UserError(f"{run / CONFIG}: is not the config of a run; restore or remove it")
    return {str(key): value for key, value in content.items()}
