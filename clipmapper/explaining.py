"""Explanations of CLIPmapper's answers: the explainers that a config names, on batches of questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.subject import QuestionBatch
from clipmapper.tracing import Traced, trace_vqa
from clipmapper.vqa_model import CLIPMapperVQA
from explain import Explainer
from explain.capture.needs import Needs
from explain.targets import Target, predicted

GROUP = Path(__file__).resolve().parent.parent / "configs" / "explainer"
SEVERAL = "names"  # the key of a config that names explainers instead of being one


@dataclass(frozen=True, eq=False)
class Explained:
    """A traced batch and the scores [B, N] of its read-out tokens, by explainer."""

    traced: Traced
    scores: Mapping[str, Tensor]


def explain(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    target: Target = predicted,
    more: Needs | None = None,
) -> Explained:
    """Scores of every explainer from one trace of the batch, which holds what they need, and ``more``.

    Raises:
        TraceError: the trace holds NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values()) | (more or Needs())
    traced = trace_vqa(model, batch.pixels, batch.text, target, needs, batch.ids)
    return Explained(traced, {name: each(traced.trace, traced.rows) for name, each in explainers.items()})


def choose_explainers(config: DictConfig, choice: str) -> dict[str, Explainer]:
    """The explainers of the config group ``explainer``, by name.

    Args:
        config: The composed group: one explainer's config, or ``names``: a list of them or ``all``.
        choice: What was chosen, the name of the only one.

    Raises:
        UserError: an unknown name, or an option that the explainer refuses.
    """
    if SEVERAL not in config:
        return {choice: _built(choice, config)}
    available = sorted(path.stem for path in GROUP.glob("*.yaml") if SEVERAL not in OmegaConf.load(path))
    names = available if config[SEVERAL] == "all" else list(config[SEVERAL])
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        wrong = unknown[0] if unknown else "an empty list"
        raise UserError(f"explainer.names: {wrong} is none of: {', '.join(available)}")
    return {name: _built(name, OmegaConf.load(GROUP / f"{name}.yaml")) for name in names}


def _built(name: str, config: Any) -> Explainer:
    try:
        explainer = instantiate(config)
    except InstantiationException as error:  # holds whatever the explainer's own check said
        cause = error.__cause__ or error
        raise UserError(f"explainer={name}: {' '.join(str(cause).split())}") from error
    if not isinstance(explainer, Explainer):
        raise UserError(f"explainer={name}: {type(explainer).__name__} is no explain.Explainer")
    return explainer
