"""The perturbation tests done the plain way: every explanation by itself, every step a full forward pass of one sample.

Nothing but the tests and the benchmarks uses it: the engine's results and its speed are held against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.nn import TokenSubset
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Explainer
from perturbation.removal.order import Direction, kept_masks
from perturbation.removal.reader import Modality


def plain_loop(
    model: CLIPMapperVQA,
    pixels: Tensor,
    questions: TextBatch,
    explainers: Mapping[str, Explainer],
    steps: Sequence[float],
) -> dict[tuple[str, str, str], Tensor]:
    """Logits at every step, [B, S, answers], by explainer, modality and direction.

    Args:
        model: In evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions.
        explainers: By name; each has a trace of its own.
        steps: The S removed fractions.
    """
    rows: dict[tuple[str, str, str], list[Tensor]] = {}
    for b in range(len(pixels)):
        valid = questions.valid[b]
        one = TextBatch(questions.ids[b : b + 1, valid], valid[valid][None], 0)
        for name, explainer in explainers.items():
            traced = trace_vqa(model, pixels[b : b + 1], one)
            scores = explainer(traced.trace, traced.rows)
            for modality in get_args(Modality):
                removable = traced.scores(traced.removable, modality).numpy()
                ranked = traced.scores(scores, modality).double().numpy()
                for direction in get_args(Direction):
                    kept = torch.from_numpy(kept_masks(ranked, removable, steps, direction))
                    if modality == "image":
                        kept = torch.cat([kept.new_ones(1, len(steps), 1), kept], 2)
                    logits = plain_logits(model, pixels[b : b + 1], one, **{modality: kept})
                    rows.setdefault((name, modality, direction), []).append(logits)
    return {key: torch.cat(each) for key, each in rows.items()}


@torch.inference_mode()
def plain_logits(
    model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch, image: Tensor | None = None, text: Tensor | None = None
) -> Tensor:
    """Logits [B, M, answers] of full forward passes, one sample and one subset at a time.

    Args:
        model: In evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions.
        image: bool [B, M, 1 + P] over class token and patches: nothing attends to the others.
        text: bool [B, M, n_t] over the text stream. One of the two is given, or both.
    """
    given = {name: kept for name, kept in (("image", image), ("text", text)) if kept is not None}
    several = next(iter(given.values())).shape[1]
    rows = []
    for b in range(len(pixels)):
        one = TextBatch(questions.ids[b : b + 1], questions.valid[b : b + 1], 0)
        for m in range(several):
            subsets = {f"{name}_subset": _subset(kept[b, m]) for name, kept in given.items()}
            rows.append(model(pixels[b : b + 1], one, **subsets))
    return torch.cat(rows).unflatten(0, (len(pixels), several))


def _subset(mask: Tensor) -> TokenSubset:
    return TokenSubset(torch.arange(len(mask))[None], mask[None])
