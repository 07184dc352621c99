"""The explanations of any model's answers, compared with the evidence that the answers depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clipmapper.any_model.explainers import usable
from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.any_model.samples import Sample, load_samples
from clipmapper.console import progress
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.errors import UserError
from clipmapper.process import together
from clipmapper.training.batches import even_batches
from explain import Explainer
from perturbation.arrays import Array, Mask
from perturbation.config import LocaliseModelConfig
from perturbation.localise import generated
from perturbation.localise.agreement import check_images, check_model_and_texts
from perturbation.localise.deletion import DELETION
from perturbation.localise.metrics import METRICS, chance
from perturbation.localise.tables import CHANCE
from perturbation.localise.vqa import CORRECT, Localised, too_few_correct, write_report
from perturbation.measures.faithfulness import single_effects, single_removals
from perturbation.pairs.explaining import Chosen, explained_pairs
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import Pair, read_pairs
from perturbation.pairs.scorers.choose import scorer_of
from perturbation.pairs.units import Units
from perturbation.removal.reader import Modality, read_together


def run_localisation(config: LocaliseModelConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Compare explanations with the evidence; write ``localisation.json``, ``.md`` and ``.parquet``, print the table.

    With a prompt, the words of the captions that it asks for are judged instead of answers.

    Raises:
        UserError: The data has no evidence, the model gives no answers, or too few of them are correct.
    """
    if config.prompt is not None:
        generated.run_localisation(config, explainers, run)
        return
    evidence = read_evidence(config.data, config.split)
    loaded = load_model(config)
    if loaded.dual:
        raise UserError("a dual encoder gives no answers, whose evidence is known: choose a model of questions")
    print(loaded.name, flush=True)
    scorer = scorer_of(loaded.model, loaded.processor, loaded.max_new_tokens)
    reader = PairReader(scorer, "mean", "drop", config.batch_size, correct=True)
    samples = correctly_answered(load_samples(config.data, config.split, dual=False), reader, config)
    check_model_and_texts(loaded.fingerprint, "samples", ([each.id, each.text, each.answers] for each in samples))
    check_images((sample.image for sample in samples), config.paths.cache)
    first = next(read_pairs(samples, "fail"))
    explainers = usable(explainers, loaded, first.image, first.text)
    batches = even_batches(range(len(samples)), config.batch_size)
    with progress(sum(map(len, together.mine(batches))), "explaining", "questions") as advance:

        def localised(rows: list[int]) -> dict[Modality, dict[str, Array]]:
            found = _metrics(loaded, reader, [samples[row] for row in rows], explainers, evidence, config)
            advance(len(rows))
            return found

        parts = together.shared_out(batches, localised)
    if together.rank() > 0:
        return
    values: dict[str, dict[str, Array]] = {
        m: {name: np.concatenate([part[m][name] for part in parts]) for name in columns}
        for m, columns in parts[0].items()
    }
    kinds, ids = tuple(sample.kind for sample in samples), tuple(sample.id for sample in samples)
    write_report(Localised(values, kinds, ids), loaded.source, config, run)


def correctly_answered(samples: Sequence[Sample], reader: PairReader, config: LocaliseModelConfig) -> list[Sample]:
    """Return the first ``config.samples`` samples, in a random order, that the model answers correctly.

    Raises:
        UserError: The model answers fewer correctly, or it fails.
    """
    order = np.random.default_rng(config.seed).permutation(len(samples)).tolist()
    found: list[Sample] = []
    with progress(config.samples, "looking for correct answers", "correct answers") as advance:
        for rows in even_batches(order, config.batch_size):
            read = {sample.id: sample for sample in (samples[row] for row in rows)}
            pairs = list(read_pairs(read.values(), config.data.on_bad_image))
            for pair, asked in zip(pairs, reader.ask(pairs) if pairs else (), strict=True):
                if pair.accuracy(reader.scorer.text(asked)) >= CORRECT and len(found) < config.samples:
                    found.append(read[pair.id])
                    advance()
            if len(found) == config.samples:
                return found
    raise too_few_correct(config, len(found), len(order))


def _metrics(
    loaded: LoadedModel,
    reader: PairReader,
    samples: Sequence[Sample],
    explainers: Mapping[str, Explainer],
    evidence: SplitEvidence,
    config: LocaliseModelConfig,
) -> dict[Modality, dict[str, Array]]:
    """Return the metrics of a batch, [B, metrics], by modality and explainer, ``deletion`` or ``chance``."""
    pairs = list(read_pairs(samples, "fail"))
    chosen = Chosen(explainers, {}, [], 1, loaded.layers, loaded.max_new_tokens)
    explained, units = explained_pairs(loaded.model, loaded.processor, pairs, chosen, 0, config.seed)
    counted = {modality: tokens.removable for modality, tokens in explained.tokens.items()}
    whole, asked = reader.samples(pairs, units, 0), reader.ask(pairs)
    outputs = read_together(lambda subsets: reader.read(whole, subsets, asked), single_removals(counted))
    found: dict[Modality, dict[str, Array]] = {}
    for modality, tokens in explained.tokens.items():
        eligible = tokens.removable
        truth = np.zeros_like(eligible)
        for b, (sample, pair, parts) in enumerate(zip(samples, pairs, units, strict=True)):
            known = _evidence(evidence, sample, pair, parts, modality, config.patch_share)
            truth[b, : len(known)] = known
        scores = {by.name: values for by, values in tokens.scores.items()}
        scores[DELETION] = single_effects(outputs, modality)
        found[modality] = {
            name: np.stack([measure(values, eligible, truth) for measure in METRICS.values()], 1)
            for name, values in scores.items()
        }
        found[modality][CHANCE] = np.stack([chance(eligible, truth)] * len(METRICS), 1)
    return found


def _evidence(
    evidence: SplitEvidence, sample: Sample, pair: Pair, units: Units, modality: Modality, patch_share: float
) -> Mask:
    """Return which cells, or which words, of one sample are evidence, bool [n]."""
    if modality == "text":
        spans = evidence.questions[sample.id].words
        inside = [any(first <= start and end <= last for first, last in spans) for start, end in units.words]
        return np.array(inside, dtype=np.bool_)
    rows, cols = units.grid
    assert pair.image is not None
    whole = (0, 0, *pair.image.size)
    seen = (*units.boxes.min(0)[:2].tolist(), *units.boxes.max(0)[2:].tolist())
    if rows != cols or seen != whole:
        raise UserError(f"the model sees {rows} × {cols} cells in {seen} of an image; evidence needs a square grid")
    return evidence.patches(sample.id, sample.image_id, rows, patch_share)
