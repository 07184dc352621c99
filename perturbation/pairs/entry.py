"""``perturbation.test``: are explanations of a model faithful to it?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from omegaconf import OmegaConf

from clipmapper.config.groups import named_configs
from clipmapper.console import progress
from clipmapper.files import versions
from explain.adapters.watching import Layers
from explain.sample.traced import MOST_TOKENS
from perturbation.measures.base import Measure
from perturbation.pairs.explaining import choose
from perturbation.pairs.reader import CellRemoval, PairReader, WordRemoval
from perturbation.pairs.result import Tested, tested
from perturbation.pairs.samples import pairs_of
from perturbation.pairs.scorers.choose import ready, scorer_of
from perturbation.pairs.tests import PairTests
from perturbation.perturb.measures import build_measures
from perturbation.perturb.parts import Tables


def test(
    model: Any,
    processor: Any = None,
    samples: Iterable[Sequence[Any]] = (),
    *,
    explainers: Any = ("weighted", "genatt"),
    measures: Sequence[str] = ("areas",),
    controls: Sequence[str] = ("random",),
    image_removal: CellRemoval = "mean",
    text_removal: WordRemoval = "drop",
    steps: str | Sequence[float] = "paper",
    random_seeds: int = 3,
    batch_size: int = 32,
    batch_samples: int = 8,
    seed: int = 0,
    layers: Layers = None,
    max_new_tokens: int = MOST_TOKENS,
) -> Tested:
    """Test explanations of any model by removing cells of the image and words of the text.

    The model's answer to each complete sample is explained. Cells and words are then removed by their scores, and the
    model reads what is left. With people's answers to all samples, the main value is the accuracy of the answers;
    otherwise it is the probability of the answer to the complete sample, the similarity of a dual encoder, or the score
    of a function.

    Args:
        model: A model of ``transformers``, its folder or its name; an open_clip model; a CLIPmapper for questions; or a
            function (images, texts) → scores, which takes lists and returns one number for each pair.
        processor: As in :func:`explain.explain`; None for a function.
        samples: Tuples (image, text) or (image, text, answers of people).
        explainers: Names or :class:`~explain.Explainer` objects; or a mapping from name to one of these, to a function
            (image, text) → (scores of cells [rows, cols] or None, scores of words or None), or to a list of such pairs,
            one for each sample.
        measures: Names of measures in ``configs/measure``.
        controls: Further rows: ``random``, ``first_to_last``, ``last_to_first``, ``centre_first``.
        image_removal: What is seen in the place of removed cells: ``mean``, ``zero``, ``blur``, ``noise`` or
            ``noisy_linear`` (:class:`~perturbation.removal.filling.Filler`); or ``mask``, with which no token of an
            open_clip model attends to the patch.
        text_removal: ``drop`` leaves removed words out; ``mask`` and ``pad`` put the tokenizer's token in their places.
        steps: Removed fractions, which rise from 0; or ``paper``.
        random_seeds: Number of random orders, over which the control ``random`` is averaged.
        batch_size: Number of pairs that the model reads together.
        batch_samples: Number of samples whose subsets are read together.
        seed: Seed of random orders, of equal scores, of noise, and of the bootstrap.
        layers: Layers that explanations read, as in :func:`explain.explain`; None for all.
        max_new_tokens: Most tokens of the answer that a language model generates, if it does not end before.

    Raises:
        UserError: An argument or a sample does not fit, or the model fails; one line names it.
    """
    pairs = pairs_of(samples)
    model, processor = ready(model, processor)
    scorer = scorer_of(model, processor, max_new_tokens)
    function = scorer.value == "score"
    chosen = choose(explainers, controls, random_seeds, function, layers, max_new_tokens)
    built = _measures(measures, steps, type(model).__name__, seed)
    correct = all(pair.answers is not None for pair in pairs)
    reader = PairReader(scorer, image_removal, text_removal, batch_size, correct)
    tests = PairTests(model, processor, reader, chosen, built, seed)
    tables: Tables = {}
    with progress(len(pairs), "testing explanations", "samples") as advance:
        for start in range(0, len(pairs), batch_samples):
            batch = pairs[start : start + batch_samples]
            for name, found in tests.record(batch, start).items():
                tables.setdefault(name, []).extend(found)
            advance(len(batch))
    records = {name: pa.concat_tables(parts).combine_chunks() for name, parts in tables.items()}
    about = {"model": type(model).__name__, "image_removal": image_removal, "text_removal": text_removal}
    return tested(records, built, {**about, "seed": seed, "versions": versions()})


def _measures(names: Sequence[str], steps: str | Sequence[float], model: str, seed: int) -> dict[str, Measure]:
    """Build measures with their default options."""
    run = OmegaConf.create(
        {
            "steps": steps if isinstance(steps, str) else list(steps),
            "direction": ["positive", "negative"],
            "about": {"model": model},
            "eraser": [0.05, 0.1, 0.2, 0.5],
            "faithfulness": True,
            "ceiling": {"samples": 8, "words": 8},
            "seed": seed,
        }
    )
    return build_measures(named_configs("measure", list(dict.fromkeys(["areas", *names])), {}, run))
