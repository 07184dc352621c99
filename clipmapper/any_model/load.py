"""Loading of the model that a config names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from clipmapper.config.explain import AnyModelConfig
from clipmapper.config.schema import HuggingFaceConfig, ModelConfig, OpenClipConfig
from clipmapper.encoder.load import fingerprint, use
from clipmapper.encoder.open_clip_models import activation_note, check_source, load_open_clip, load_tokenizer
from clipmapper.encoder.trained_with import Source
from clipmapper.errors import UserError
from clipmapper.files import check_regular
from clipmapper.pretrained import LLAVA
from explain.adapters.open_clip import checked_towers
from explain.adapters.watching import Layers
from explain.sample.hugging_face import DUAL
from explain.sample.loaded import loaded
from explain.sample.traced import MOST_TOKENS
from explain.trace import TraceError

EMBEDDED = "embedded"  #: the path that means the small LLaVA of the package


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and its processor, in the form that :func:`explain.explain` takes."""

    model: nn.Module
    processor: Any
    source: str  #: where it was loaded from
    dual: bool  #: whether it is a dual encoder, whose only value is the similarity of an image and a text
    layers: Layers = None  #: the layers that explanations read; None for all
    max_new_tokens: int = MOST_TOKENS  #: most tokens of a generated answer
    architecture: str = ""  #: the name of a model without a config, with its activation

    @property
    def name(self) -> str:
        """The model with its class and size, as text for the user."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"model: {self.source} ({type(self.model).__name__}, {count:,} parameters)"

    def fingerprint(self) -> str:
        """Return a hash that changes with every weight, the model's config and the processor's settings."""
        return fingerprint(
            self.model, f"{getattr(self.model, 'config', self.architecture)} {_settings(self.processor)}"
        )


def load_model(config: AnyModelConfig) -> LoadedModel:
    """Load the model that the config names, on the device of its trainer, and seed torch's generators.

    Raises:
        UserError: There is no such model, its files are damaged, or there is no such device.
    """
    device = use(config)
    torch.manual_seed(config.seed)  # some models draw at random, such as the order of ViLT's patches
    found = load_named(config.model)
    found.model.to(device)
    return found


def load_named(config: ModelConfig) -> LoadedModel:
    """Load the model that a section of a config names.

    Raises:
        UserError: There is no such model, or its files are damaged.
    """
    if isinstance(config, OpenClipConfig):
        return _open_clip(config)
    assert isinstance(config, HuggingFaceConfig)
    return _named_hugging_face(config)


def _named_hugging_face(config: HuggingFaceConfig) -> LoadedModel:
    try:
        found = load_hugging_face(str(LLAVA) if config.path == EMBEDDED else config.path)
    except UserError as error:
        raise UserError(f"model.path={config.path}: {error}") from error
    return replace(found, layers=config.layers, max_new_tokens=config.max_new_tokens)


def load_hugging_face(path: str) -> LoadedModel:
    """Load a model of ``transformers`` with its processor.

    Args:
        path: Its folder, or its name on the Hugging Face hub.

    Raises:
        UserError: There is no such model, its files are damaged, or ``transformers`` is not installed.
    """
    if (folder := Path(path)).is_dir():
        for file in folder.iterdir():  # transformers would wait for a pipe, or read a device without end
            if file.exists() and not file.is_dir():
                check_regular(file, "weights")
    try:
        from transformers.utils import logging

        logging.disable_progress_bar()  # clipmapper.console shows the progress of all commands
        model, processor = loaded(path, None)
    except ImportError as error:
        raise UserError("the package transformers is missing: install clipmapper[transformers]") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    name = Path(path).name if Path(path).is_dir() else path
    return LoadedModel(model, processor, name, model.config.model_type in DUAL)


def _open_clip(config: OpenClipConfig) -> LoadedModel:
    source = check_source(Source.of(config))
    model = load_open_clip(source)
    try:
        _, text = checked_towers(model)
    except TraceError as error:
        raise UserError(
            f"{source.model}: {error}; explain a plain CLIP, or this model with model=huggingface"
        ) from error
    settings = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    preprocess = open_clip.transform.image_transform_v2(settings, is_train=False)
    processor = (preprocess, load_tokenizer(source))
    note = activation_note(text, source.name)
    shown = f"{config.architecture}{note}, {source.weights}"
    return LoadedModel(model.eval(), processor, shown, True, config.layers, architecture=f"{source.name}{note}")


def _settings(processor: Any) -> str:
    """Return the settings of a processor as text."""
    if isinstance(processor, tuple):  # of open_clip; a tokenizer's text has its address in memory
        preprocess, tokenizer = processor
        return f"{preprocess} {type(tokenizer).__name__}"
    return str(processor.to_dict()) if hasattr(processor, "to_dict") else str(processor)
