"""The layers of any model: which weights each has, and their order from the output to the input."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

import open_clip
import pytest
import sample_models
import torch
from hugging_face_models import MODELS
from torch import nn

from perturbation.randomise.layers import Part, redraw, registered_layers

transformers = pytest.importorskip("transformers")
SAMPLES = ("open_clip", "vilt")


def model_of(name: str) -> Any:
    return getattr(sample_models, name)()[0] if name in SAMPLES else MODELS[name]()[0]


def weights_of(parts: list[Part]) -> list[int]:
    """Return the identities of the parameters of some parts."""
    nested = [[part] if isinstance(part, nn.Parameter) else list(part.parameters()) for part in parts]
    return [id(parameter) for each in nested for parameter in each]


def last_names(model: nn.Module) -> dict[int, str]:
    """Return the last name of every parameter, in the order of these names."""
    named: dict[int, str] = {}
    for name, parameter in reversed(list(model.named_parameters(remove_duplicate=False))):
        named.setdefault(id(parameter), name)
    return dict(reversed(named.items()))


def entry_of(name: str, lists: set[str]) -> str:
    """Return the entry of the outermost list that a parameter belongs to, from its name alone; empty without."""
    path = name.split(".")
    starts = [".".join(path[:k]) for k in range(1, len(path))]
    return next((longer for start, longer in pairwise(starts) if start in lists), "")


@pytest.mark.parametrize("name", [*SAMPLES, *MODELS])
def test_every_weight_is_in_one_layer_and_the_last_layer_comes_first(name: str) -> None:
    """The weights of a list's entry are a layer, and so are all weights between two such entries."""
    model = model_of(name)
    lists = {path for path, module in model.named_modules() if isinstance(module, nn.ModuleList | nn.Sequential)}
    entries = [(entry_of(path, lists), weight) for weight, path in last_names(model).items()]
    expected = [(key, {weight for _, weight in group}) for key, group in groupby(entries, key=lambda each: each[0])]
    layers = registered_layers(model)
    found = [weights_of(parts) for parts in layers.values()]
    assert [set(weights) for weights in found] == [weights for _, weights in reversed(expected)]
    every = [weight for weights in found for weight in weights]
    assert len(set(every)) == len(list(model.parameters()))
    for layer, (entry, _) in zip(layers, reversed(expected), strict=True):
        assert layer == entry or not entry


def test_shared_weights_belong_to_the_layer_that_is_registered_last() -> None:
    model = model_of("gemma3")
    shared = model.lm_head.weight
    assert model.model.language_model.embed_tokens.weight is shared
    assert [layer for layer, parts in registered_layers(model).items() if id(shared) in weights_of(parts)] == [
        "lm_head"
    ]


def test_layers_are_named_by_the_last_of_their_parts() -> None:
    """LLaVA registers its encoder, its projector and its language model, and each of these its parts in this order."""
    encoder, language = "model.vision_tower.encoder.layers", "model.language_model.layers"
    expected = ["lm_head", f"{language}.2", f"{language}.1", f"{language}.0", "model.language_model.embed_tokens"]
    expected += [f"{encoder}.2", f"{encoder}.1", f"{encoder}.0", "model.vision_tower.pre_layrnorm"]
    assert list(registered_layers(model_of("llava"))) == expected


def norms() -> Mapping[str, nn.Module]:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    return {
        "torch": nn.RMSNorm(4),
        "llama": LlamaRMSNorm(4),
        "gemma": Gemma3RMSNorm(4),
        "batch": nn.BatchNorm2d(4),
        "layer": nn.LayerNorm(4),
        "open_clip": open_clip.transformer.LayerNormFp32(4),
    }


@pytest.mark.parametrize("name", ["torch", "llama", "gemma", "batch", "layer", "open_clip"])
def test_norms_become_their_mean_and_layer_norms_are_reset(name: str) -> None:
    norm = norms()[name]
    with torch.no_grad():
        for parameter, values in zip(norm.parameters(), ([1, 2, 3, 6], [-1, 0, 0, 3]), strict=False):
            parameter.copy_(torch.tensor(values))
    redraw([norm], torch.Generator().manual_seed(0))
    weight, *bias = (parameter.tolist() for parameter in norm.parameters())
    mean = {"layer": (1, 0), "open_clip": (1, 0)}.get(name, (3, 0.5))
    assert weight == [mean[0]] * 4
    assert bias == ([[mean[1]] * 4] if bias else [])


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl"])
def test_the_norms_of_a_whole_model_are_not_drawn(name: str) -> None:
    """Each RMS norm is scaled by the mean of its weights before; all other matrices are drawn."""
    model = model_of(name)
    before = {path: parameter.tolist() for path, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for parts in registered_layers(model).values():
        redraw(parts, generator)
    rms, drawn = 0, 0
    for path, parameter in model.named_parameters():
        module = model.get_submodule(path.rpartition(".")[0])
        if type(module).__name__.endswith("RMSNorm"):
            rms += 1
            assert parameter.tolist() == pytest.approx([sum(before[path]) / len(before[path])] * len(before[path]))
        elif not isinstance(module, nn.LayerNorm) and parameter.ndim > 1:
            drawn += 1
            assert not torch.isclose(parameter, torch.tensor(before[path])).all(), path
    assert rms > 5
    assert drawn > 20
