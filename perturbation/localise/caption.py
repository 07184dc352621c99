"""The explanations of a caption's words, compared with the objects that the words name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipmapper.choice import describe
from clipmapper.console import progress
from clipmapper.data.shapes.caption_truth import KnownScene, check_caption
from clipmapper.data.shapes.caption_words import NamedObjects, named_objects, read_scenes
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import print_lrp_precision, scoring
from clipmapper.explaining.partners import Partners
from clipmapper.files import write_metrics
from clipmapper.process import together
from clipmapper.tasks.caption.explaining import caption_partners, explain_words, in_chunks
from clipmapper.tasks.caption.sentence import split_words
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner, load_trained
from clipmapper.training.batches import in_order
from clipmapper.training.identity import digest_of_file
from explain import Explainer
from explain.figures.saving import save
from perturbation.config import LocaliseBaseConfig, LocaliseConfig
from perturbation.localise.agreement import check_images, check_model_and_texts
from perturbation.localise.deletion import DELETION, word_effects
from perturbation.localise.figure import draw_localisation
from perturbation.localise.metrics import Mask, Scores
from perturbation.localise.samples import write_samples
from perturbation.localise.tables import cell, print_localisation
from perturbation.localise.words import ALL, RANDOM, word_localisation_rows, word_values
from perturbation.report.tables import markdown_table

IMAGES_AT_ONCE = 16  # number of images captioned together
KINDS = ("color", "shape", "size", "position", ALL)
_HEADS = {"mass_accuracy": "mass on the named objects", "pointing_game": "pointing game"}


@dataclass(frozen=True, eq=False)
class NamingCaptions:
    """The captions of a batch that name objects."""

    batch: CaptionedBatch  #: only the images whose captions name objects
    named: Sequence[Sequence[NamedObjects]]  #: for each caption, its words that name objects
    true: int  #: number of true captions in the whole batch, whether they name objects or not


@dataclass(frozen=True, eq=False)
class JudgedWords:
    """W words that name objects, with their explanations and evidence over P patches."""

    relevance: Mapping[str, Scores]  #: [W, P] by explainer
    evidence: Mask  #: bool [W, P]
    kinds: Sequence[str]  #: the kind of each word, [W]
    captions: Sequence[int]  #: the image id of each word's caption, [W]
    counts: Mapping[str, int]  #: numbers of captioned images (of the whole run), of true captions, and of those used


def run_localisation(config: LocaliseConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Compare word explanations with the named objects; write ``word_localisation`` files, print the table.

    Raises:
        UserError: The data has no evidence, no checkpoint fits, or no true caption identifies the objects it names.
    """
    evidence = read_evidence(config.data, config.split)
    trained = load_trained(config, config.split, config.checkpoint)
    print(f"checkpoint: {describe(trained.checkpoint)}", flush=True)
    print_lrp_precision(explainers.values(), trained.model)
    texts = ([image.image_id, image.captions] for image in trained.images)
    check_model_and_texts(lambda: digest_of_file(trained.checkpoint), "captions", texts)
    judged = {name: each for name, each in explainers.items() if name != RANDOM}  # the tables add random scores
    judged = scoring(judged, ["image"])
    found = localise_words(trained, evidence, judged, config)
    if together.rank() == 0:
        write_report(found, str(trained.checkpoint), config, run)


def write_report(found: JudgedWords, model: str, config: LocaliseBaseConfig, run: Path) -> None:
    """Write the ``word_localisation`` files, and print the table.

    Args:
        found: The words with their explanations and evidence.
        model: The file or name of the model.
        config: The command's config.
        run: The run folder.
    """
    values = word_values(found.relevance, found.evidence, config.seed)
    write_samples(run / "word_localisation.parquet", "image_id", found.captions, found.kinds, {"image": values})
    with progress(None, "computing intervals"):
        tables = word_localisation_rows(values, found.kinds, found.captions, config.about, config.seed)
    about = {"checkpoint": model, **found.counts, "words": len(found.kinds)}
    write_metrics(run / "word_localisation.json", {**tables, **about}, asdict(config))
    about_data = f"{config.data.name} {config.split}"
    text = markdown(tables["rows"], tables["left_out"], about_data, about)
    (run / "word_localisation.md").write_text(text, encoding="utf-8")
    every = [row for row in tables["rows"] if row["kind"] == ALL]
    save(draw_localisation(every), run / "word_localisation")
    print_localisation(every, f"words of captions of {about_data}", "word_localisation.md has the kinds of words")


def localise_words(
    trained: TrainedCaptioner, evidence: SplitEvidence, explainers: Mapping[str, Explainer], config: LocaliseConfig
) -> JudgedWords:
    """Explain every word that names objects in the true captions of ``config.samples`` images.

    Raises:
        UserError: The split has fewer images, no word names objects, or the model contains NaN.
    """
    total = len(trained.images)
    if config.samples > total:
        raise UserError(f"samples={config.samples}: the {config.split} split has {total} images; give fewer")
    rows = np.random.default_rng(config.seed).permutation(total)[: config.samples].tolist()
    check_images((trained.images[row].image for row in rows), config.paths.cache)
    partners = caption_partners(trained, rows, config.seed)
    scenes = read_scenes(evidence)
    batches = [[rows[place] for place in places] for places in in_order(len(rows), IMAGES_AT_ONCE)]
    with progress(sum(map(len, together.mine(batches))), "explaining captions", "images") as advance:

        def judged(places: list[int]) -> list[JudgedWords]:
            batch = trained.batch(places)
            found = [] if batch is None else [*_judge(trained, evidence, scenes, explainers, partners, batch, config)]
            advance(len(places))
            return found

        parts = [part for found in together.shared_out(batches, judged) for part in found]
    counts = {name: sum(part.counts[name] for part in parts) for name in ("true", "captions")}
    if not any(part.kinds for part in parts):
        raise UserError(
            f"samples={len(rows)}: {counts['true']} captions are true of their images, and none of them identifies "
            "the object it names, so no word can be judged; give more samples, or a better checkpoint"
        )
    parts = [part for part in parts if part.kinds]
    return JudgedWords(
        {name: np.concatenate([part.relevance[name] for part in parts]) for name in (*explainers, DELETION)},
        np.concatenate([part.evidence for part in parts]),
        [kind for part in parts for kind in part.kinds],
        [owner for part in parts for owner in part.captions],
        {"pictures": len(rows), **counts},
    )


def _judge(
    trained: TrainedCaptioner,
    evidence: SplitEvidence,
    scenes: Mapping[int, KnownScene],
    explainers: Mapping[str, Explainer],
    partners: Partners,
    captioned: CaptionedBatch,
    config: LocaliseConfig,
) -> Iterator[JudgedWords]:
    """Yield the numbers of a batch's captions, without words, and then the words that name objects, in chunks."""
    part = _captions_that_name(trained, captioned, scenes)
    yield JudgedWords({}, np.empty((0, 0), np.bool_), [], [], {"true": part.true, "captions": len(part.named)})
    side = math.isqrt(trained.model.encoder.vision.patches)
    for chunk in in_chunks(part.batch.captions, config.batch_size):
        batch, named = part.batch.part(chunk), [part.named[k] for k in chunk]
        bound, _ = partners.bind(explainers, batch.items)
        pairs = [(image.image_id, word) for image, words in zip(batch.images, named, strict=True) for word in words]
        yield JudgedWords(
            _word_relevance(trained, batch, named, bound, config.batch_size),
            np.stack([evidence.object_patches(i, word.objects, side, config.patch_share) for i, word in pairs]),
            [word.kind for _, word in pairs],
            [image_id for image_id, _ in pairs],
            {"true": 0, "captions": 0},
        )


def _captions_that_name(
    trained: TrainedCaptioner, batch: CaptionedBatch, scenes: Mapping[int, KnownScene]
) -> NamingCaptions:
    """Select the captions of a batch that name objects, and count those that are true of their scene."""
    true, kept, named = 0, [], []
    for k, (image, ids) in enumerate(zip(batch.images, batch.captions, strict=True)):
        scene = scenes[image.image_id]
        true += check_caption(trained.model.vocabulary.text(ids), scene).true
        words = [word.text for word in split_words(ids, trained.model.encoder.tokenizer)]
        if found := named_objects(words, scene):
            kept.append(k)
            named.append(found)
    return NamingCaptions(batch.part(kept), named, true)


def _word_relevance(
    trained: TrainedCaptioner,
    batch: CaptionedBatch,
    named: Sequence[Sequence[NamedObjects]],
    explainers: Mapping[str, Explainer],
    batch_size: int,
) -> dict[str, Scores]:
    """Return the patches' scores for the words that name objects, [W, P] by explainer and for the deletion oracle."""
    explained = explain_words(trained.model, batch, explainers, checkpoint=trained.checkpoint)
    starts = np.cumsum([0, *map(len, explained.words)])[:-1]
    chosen = [start + word.word for start, words in zip(starts.tolist(), named, strict=True) for word in words]
    found: dict[str, Scores] = {
        name: explained.traced.scores(scores, "image")[chosen].double().cpu().numpy()
        for name, scores in explained.scores.items()
    }
    return {**found, DELETION: word_effects(trained.model, batch, batch_size)[chosen]}


def markdown(rows: Sequence[Mapping[str, Any]], left_out: int, data: str, about: Mapping[str, Any]) -> str:
    """Return one table per metric, with a line per explainer and a column per kind of word, and 95 % intervals."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    words = {row["kind"]: row["words"] for row in rows}
    head = ["explainer", *(f"{kind} ({words[kind]} words)" for kind in kinds)]
    names = list(dict.fromkeys(row["explainer"] for row in rows))
    parts = []
    for metric, title in _HEADS.items():
        cells = {(row["explainer"], row["kind"]): cell(row) for row in rows if row["metric"] == metric}
        lines = [[name, *(cells[name, kind] for kind in kinds)] for name in names]
        parts.append(f"{title}\n\n{markdown_table(head, lines, names=len(head))}")
    parts.append(
        f"{data}, {about['pictures']} pictures: {about['true']} captions are true of their scene, {about['captions']} "
        f"of them have words that say which objects they mean, {about['words']} words in all ({left_out} left out: "
        "their objects fill no patch). Means over captions with 95 % bootstrap intervals. ° not above chance: the "
        "interval of the paired difference to chance is not above 0.\n"
    )
    return "\n".join(parts)
