"""The explanations of answers, compared with the evidence that the answers depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clipmapper.choice import describe
from clipmapper.console import progress
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import print_lrp_precision
from clipmapper.files import write_metrics
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.process import together
from clipmapper.tasks.vqa.explaining import explain, question_partners
from clipmapper.tasks.vqa.tracing import Traced
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA, load_trained
from clipmapper.training.batches import even_batches
from clipmapper.training.identity import digest_of_file
from explain import Explainer
from explain.figures.saving import save
from perturbation.arrays import Array, Mask
from perturbation.config import LocaliseBaseConfig, LocaliseConfig
from perturbation.localise.agreement import check_images, check_model_and_texts
from perturbation.localise.deletion import DELETION, answer_effects
from perturbation.localise.figure import draw_localisation
from perturbation.localise.metrics import METRICS, chance
from perturbation.localise.samples import write_samples
from perturbation.localise.tables import CHANCE, localisation_rows, markdown, print_localisation
from perturbation.removal.engine import Engine, VQAReader
from perturbation.removal.reader import Modality

MODALITIES: tuple[Modality, ...] = ("image", "text")
CORRECT = 0.5  # minimum official accuracy of an answer that counts as correct: two annotators gave it


@dataclass(frozen=True)
class Localised:
    """The metrics of every explainer on every question."""

    #: [samples, metrics] by modality and explainer, with the names ``deletion`` and ``chance`` for these two; the
    #: metrics are in the order of ``METRICS``; NaN if a question has no evidence.
    values: Mapping[str, Mapping[str, Array]]
    kinds: tuple[str, ...]  #: the kind of each question, [samples]
    ids: tuple[int, ...]  #: the id of each question, [samples]


def run_localisation(config: LocaliseConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Compare explanations with the evidence; write ``localisation.json``, ``.md`` and ``.parquet``, print the table.

    Raises:
        UserError: The data has no evidence, no checkpoint fits, or too few answers are correct.
    """
    evidence = read_evidence(config.data, config.split)
    trained = load_trained(config, config.split, config.checkpoint)
    print(f"checkpoint: {describe(trained.checkpoint)}", flush=True)
    print_lrp_precision(explainers.values(), trained.model)
    questions = trained.questions
    texts = ([q.question_id, q.image_id, q.question, q.answers] for q in questions)
    check_model_and_texts(lambda: digest_of_file(trained.checkpoint), "questions", texts)
    rows = correctly_answered(trained, config)
    check_images((trained.images[questions[row].image_id] for row in rows), config.paths.cache)
    chunks = even_batches(rows, config.batch_size, least=True)
    found = localise(trained, evidence, explainers, chunks, config.patch_share, config.seed)
    if together.rank() == 0:
        write_report(found, str(trained.checkpoint), config, run)


def write_report(found: Localised, model: str, config: LocaliseBaseConfig, run: Path) -> None:
    """Write ``localisation.json``, ``.md``, ``.parquet`` and the figure, and print the table.

    Args:
        found: The metrics of every explainer.
        model: The file or name of the model.
        config: The command's config.
        run: The run folder.
    """
    write_samples(run / "localisation.parquet", "question_id", found.ids, found.kinds, found.values)
    with progress(None, "computing intervals"):
        tables = localisation_rows(found.values, found.kinds, config.about, config.seed)
    about_data = f"{config.data.name} {config.split}"
    text = markdown(tables["rows"], tables["left_out"], about_data, len(found.ids))
    about = {"checkpoint": model, "questions": len(found.ids)}
    write_metrics(run / "localisation.json", {**tables, **about}, asdict(config))
    (run / "localisation.md").write_text(text, encoding="utf-8")
    save(draw_localisation(tables["rows"]), run / "localisation")
    print_localisation(tables["rows"], about_data, "localisation.md has the numbers of questions")


def correctly_answered(trained: TrainedVQA, config: LocaliseConfig) -> list[int]:
    """Return the rows of the first ``config.samples`` questions that the model answers correctly.

    The questions are read in a random order that depends only on ``config.seed``. An answer is correct if its official
    accuracy is at least 0.5.

    Raises:
        UserError: The model answers fewer questions correctly.
    """
    order = np.random.default_rng(config.seed).permutation(len(trained.questions)).tolist()

    def correct(rows: list[int]) -> list[int]:
        answered = trained.answered(rows, config.batch_size)
        return [row for row, question, answer in answered if vqa_accuracy(answer, question.answers) >= CORRECT]

    found: list[int] = []
    at_once = config.batch_size * together.world()  # a batch for each process
    with progress(config.samples, "looking for correct answers", "correct answers") as advance:
        for start in range(0, len(order), at_once):
            some = order[start : start + at_once]
            batches = [some[at : at + config.batch_size] for at in range(0, len(some), config.batch_size)]
            new = [row for rows in together.shared_out(batches, correct) for row in rows][: config.samples - len(found)]
            found += new
            advance(len(new))
            if len(found) == config.samples:
                return found
    raise too_few_correct(config, len(found), len(order))


def too_few_correct(config: LocaliseBaseConfig, correct: int, questions: int) -> UserError:
    """Return the error of a model that answers fewer than ``config.samples`` questions of the split correctly."""
    fix = f"give samples={correct} or fewer" if correct else "give the checkpoint of a better model"
    return UserError(
        f"samples={config.samples}: the model answers only {correct} of the {questions} questions of "
        f"split={config.split} correctly; {fix}"
    )


def localise(
    trained: TrainedVQA,
    evidence: SplitEvidence,
    explainers: Mapping[str, Explainer],
    chunks: Sequence[Sequence[int]],
    patch_share: float,
    seed: int,
) -> Localised:
    """Compute every metric of every explainer, and of the deletion oracle, on the questions with rows in ``chunks``.

    ``seed`` draws the questions whose weights some controls use.
    """
    partners = question_partners(trained, [row for rows in chunks for row in rows], seed)
    named = {m: [*(n for n, each in explainers.items() if m in each.modalities), DELETION, CHANCE] for m in MODALITIES}
    with progress(sum(map(len, together.mine(chunks))), "explaining", "questions") as advance:

        def localised(rows: Sequence[int]) -> tuple[dict[str, dict[str, Array]], list[str], list[int]]:
            batch = trained.batch(rows)
            assert batch is not None, "the images of these questions were readable when they were answered"
            bound, _ = partners.bind(explainers, batch.ids)
            explained = explain(trained.model, batch, bound, checkpoint=trained.checkpoint)
            counted = {modality: removable(explained.traced, modality) for modality in MODALITIES}
            reader = VQAReader(Engine(trained.model, len(rows)))
            effects = answer_effects(reader, batch, explained.traced.answers, counted)
            columns: dict[str, dict[str, Array]] = {}
            for modality, eligible in counted.items():
                truth = _evidence_mask(trained, evidence, batch, modality, eligible, patch_share)
                columns[modality] = {CHANCE: np.stack([chance(eligible, truth)] * len(METRICS), 1)}
                found = {
                    name: explained.traced.scores(explained.scores[name], modality).cpu().double().numpy()
                    for name in named[modality]
                    if name not in (DELETION, CHANCE)
                }
                for name, values in {**found, DELETION: effects[modality]}.items():
                    metrics = [measure(values, eligible, truth) for measure in METRICS.values()]
                    columns[modality][name] = np.stack(metrics, 1)
            advance(len(rows))
            return columns, [question.question_type for question in batch.questions], batch.ids

        parts = together.shared_out(chunks, localised)
    joined: dict[str, dict[str, Array]] = {
        m: {name: np.concatenate([columns[m][name] for columns, _, _ in parts]) for name in names}
        for m, names in named.items()
    }
    kinds = tuple(kind for _, found, _ in parts for kind in found)
    return Localised(joined, kinds, tuple(number for _, _, found in parts for number in found))


def removable(traced: Traced, modality: str) -> Mask:
    """Return which patches, or which text tokens, are removable and therefore count, bool [B, n]."""
    found: Mask = traced.scores(traced.removable, modality).cpu().numpy()
    return found


def _evidence_mask(
    trained: TrainedVQA,
    evidence: SplitEvidence,
    batch: QuestionBatch,
    modality: str,
    eligible: Mask,
    patch_share: float,
) -> Mask:
    """Return which eligible tokens are evidence for each question, bool [B, n]."""
    truth = np.zeros_like(eligible)
    for b, question in enumerate(batch.questions):
        if modality == "image":
            grid = math.isqrt(eligible.shape[1])
            truth[b] = evidence.patches(question.question_id, question.image_id, grid, patch_share)
        else:
            words = evidence.sub_words(question.question_id, question.question, trained.model.encoder.tokenizer)
            truth[b, eligible[b]] = words[: eligible[b].sum()]  # the encoder cuts off words beyond its context length
    return truth
