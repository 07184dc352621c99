"""Write docs/reference/model-families.md: ``python docs/write_families.py``.

It traces a tiny random model of each family that the tests know (``tests/helpers``), runs all explainers, and explains
one answer with ``explain.explain`` where the tests have a processor for it. It takes about half a minute on one core.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests" / "helpers")]
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from hugging_face_models import MODELS
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sample_families import SAMPLES
from sample_models import QUESTION, photo
from traced_models import MODELS as TRACED
from write_reference import table

import explain
from explain import Explainer, Needs
from explain.adapters import trace_hugging_face
from explain.adapters.hugging_face.families import FAMILIES
from explain.traced import Traced

PAGE = PROJECT / "docs" / "reference" / "model-families.md"
OTHERS = {"open_clip": "trace_open_clip", "vilt": "trace_vilt", "lxmert": "trace_lxmert"}
STEPS = 2  # of integrated gradients: whether it runs does not depend on them
HEAD = "<!-- Written by `python docs/write_families.py` from runs of tiny random models. -->\n"
INTRO = """# Model families

Each row is a run of a tiny random model of the family in float64: a trace of two samples, all explainers that score
images and words of one sample, and `explain.explain` on a photo and a question. A test repeats the runs and compares
them with this page. Trained models of these families run the same code, but none of them is part of the tests.

- **patches**: whether the box of each patch in the image is known, and so its relevance can be drawn on the image.
- **explainers**: those that explain the family. Left out are `shuffled` and `depth_matched`, which need samples of
  other images, and the positional orders of one modality.
- **`explain.explain`**: what the answer is explained by. "not run" means that the tests have no processor for it.

How to use them: [A Hugging Face model in five lines](../how-to/hugging-face.md). The versions with which the tests of
the adapters pass: [Contributing](../../CONTRIBUTING.md#versions-of-libraries).
"""


def all_explainers() -> dict[str, Explainer]:
    """Return the explainers of ``configs/explainer`` that explain both modalities of a batch alone, by name."""
    found: dict[str, Explainer] = {}
    for path in sorted((PROJECT / "configs" / "explainer").glob("*.yaml")):
        if "_target_" in (config := OmegaConf.load(path)):
            options = {"steps": STEPS} if path.stem == "integrated_gradients" else {}
            explainer: Explainer = instantiate(config, **options)
            if not explainer.partners and len(explainer.modalities) > 1:
                found[path.stem] = explainer
    return found


def refusals(trace: Callable[[Needs], Traced], explainers: Mapping[str, Explainer]) -> dict[str, str]:
    """Return the one-line error of each explainer that cannot explain a model."""
    found: dict[str, str] = {}
    without_lrp = {name: each for name, each in explainers.items() if "attention_relevance" not in each.needs}
    shared = trace(Needs.of(without_lrp.values()))
    for name, explainer in explainers.items():
        try:
            traced = shared if name in without_lrp else trace(Needs.of([explainer]))
            for modality, scores in traced.explain(explainer).items():
                if not bool(scores.isfinite().all()):
                    found[name] = f"scores of {modality} tokens are not finite"
        except ValueError as error:
            found[name] = str(error)
    return found


def explained_by(refused: Mapping[str, str]) -> str:
    """Return the cell of the explainers."""
    reasons = [f"`{name}` ({message})" for name, message in refused.items()]
    return f"all but {', '.join(reasons)}" if reasons else "all"


def patches(traced: Traced) -> str:
    """Return the cell of the patches."""
    if "image" not in traced.trace.sizes:
        return "no image"
    return "no boxes" if traced.boxes is None else "boxes"


def answer_of(name: str) -> str:
    """Return what ``explain.explain`` explains the answer of a tiny model by."""
    if name not in SAMPLES:
        return "not run"
    model, processor = SAMPLES[name]()
    texts, images = name not in ("vit", "dinov2", "dinov2_with_registers"), name != "bert"
    try:
        e = explain.explain(model, processor, photo() if images else None, QUESTION if texts else None)
    except ValueError as error:
        return str(error)
    return " and ".join([*(["image"] if e.images else []), *(["words"] if e.words else [])])


def rows() -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    explainers = all_explainers()
    found: list[tuple[str, ...]] = []
    for name, make in MODELS.items():
        model, inputs = make(torch.float64)

        def trace(needs: Needs, model: Any = model, inputs: Any = inputs) -> Traced:
            return trace_hugging_face(model, inputs, needs=needs)

        kind, refused = model.config.model_type, refusals(trace, explainers)
        row = (f"`{kind}`", type(model).__name__, patches(trace(Needs())), explained_by(refused), answer_of(name))
        if row[:4] not in [each[:4] for each in found]:  # LLaVA is there with two towers
            found.append(row)
    for name, function in OTHERS.items():
        model, run = TRACED[name](torch.float64)
        explained = explained_by(refusals(run, explainers))
        kind = f"{type(model).__name__}, by `{function}`"
        found.append((f"`{name}`", kind, patches(run(Needs())), explained, answer_of(name)))
    missing = set(FAMILIES) - {row[0].strip("`") for row in found}
    assert not missing, f"tests/helpers/hugging_face_models.py has no tiny model of {', '.join(sorted(missing))}"
    return found


def versions() -> str:
    """Return the versions of a run."""
    import open_clip

    return (
        f"Run with transformers {transformers.__version__}, open_clip_torch {open_clip.__version__} and torch "
        f"{torch.__version__.partition('+')[0]}.\n"
    )


def families_page() -> str:
    """Return the page without the versions of the run."""
    heads = ("model type", "class", "patches", "explainers", "`explain.explain`")
    return f"{HEAD}{INTRO}\n{table(heads, rows())}"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    PAGE.write_text(f"{families_page()}\n{versions()}", encoding="utf-8")
