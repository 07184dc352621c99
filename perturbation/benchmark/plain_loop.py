"""A slow reference implementation of the perturbation tests.

Each explanation has a separate trace, and each step is a full forward pass of one sample. Only tests and benchmarks use
this module: they compare the engine's results and speed with it.
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
from perturbation.removal.order import Direction, draw_ties, kept_masks
from perturbation.removal.reader import Modality


def plain_loop(
    model: CLIPMapperVQA,
    pixels: Tensor,
    questions: TextBatch,
    explainers: Mapping[str, Explainer],
    steps: Sequence[float],
) -> dict[tuple[str, str, str], Tensor]:
    """Return the logits at every step, [B, S, answers], by (explainer, modality, direction).

    Args:
        model: The model, in evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions, whose ids are 0 to B − 1.
        explainers: Explainers by name; each gets a separate trace.
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
                removable = traced.scores(traced.removable, modality).cpu().numpy()
                ranked = traced.scores(scores, modality).cpu().double().numpy()
                ties = draw_ties(0, [b], modality, removable.shape[1])
                for direction in get_args(Direction):
                    masks = kept_masks(ranked, removable, steps, direction, ties)
                    kept = torch.from_numpy(masks).to(pixels.device)
                    if modality == "image":
                        kept = torch.cat([kept.new_ones(1, len(steps), 1), kept], 2)
                    logits = plain_logits(model, pixels[b : b + 1], one, **{modality: kept})
                    rows.setdefault((name, modality, direction), []).append(logits)
    return {key: torch.cat(each) for key, each in rows.items()}


@torch.inference_mode()
def plain_logits(
    model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch, image: Tensor | None = None, text: Tensor | None = None
) -> Tensor:
    """Return the logits [B, M, answers] of full forward passes, one sample and one subset at a time.

    Nothing attends to a token whose mask is False. At least one of ``image`` and ``text`` must be given.

    Args:
        model: The model, in evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions.
        image: Kept image tokens, bool [B, M, 1 + P]: the class token and P patches.
        text: Kept text tokens, bool [B, M, n_t].
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
    return TokenSubset(torch.arange(len(mask), device=mask.device)[None], mask[None])
