"""Figures of explained questions, written one by one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clipmapper.console import print_table, progress
from clipmapper.data.shapes.evidence import SplitEvidence, known_evidence
from clipmapper.encoder.pieces import merge_clip_pieces
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import usable_for
from clipmapper.explaining.familiarity import WordCount, examine, note_unknown
from clipmapper.explaining.output import PICTURES, result_files, seen_box, small_photo, warning_file
from clipmapper.explaining.selection import readable
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.explaining import AnswerTarget, question_partners
from clipmapper.tasks.vqa.sample import SCHEMA, Array, ExplainedSample, ScoredAnswer, explain_samples, score_rows
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA
from clipmapper.training.batches import even_batches
from explain import Explainer
from explain.figures import Explanation, Photo, Sample, draw, draw_interaction, sample_content, save
from explain.figures.sample import with_share

MOST_ANSWERS = 3  # greatest number of different human answers that a figure shows


def write_pictures(
    trained: TrainedVQA,
    rows: Sequence[int],
    explainers: Mapping[str, Explainer],
    config: ExplainConfig,
    run: Path,
) -> int:
    """Write one figure per sample, and all scores, contents of figures and warnings, each into one file.

    What was written for samples before an error is kept.

    Args:
        trained: The model and its questions.
        rows: Questions to explain.
        explainers: Explainers by name.
        config: The command's config.
        run: The run folder.

    Returns:
        The number of explained questions.

    Raises:
        UserError: The model doesn't have an answer that the config names, no chosen image can be read, or the model
            yields NaN or Inf.
        BadImage: An image can't be read, and ``data.on_bad_image`` is ``fail``.
    """
    answers: list[list[str]] = []
    aim = AnswerTarget.of(config, trained.model.answers)
    preprocessing = trained.model.encoder.vision.visual.preprocess_cfg
    partners = question_partners(trained, rows, config.seed, aim.of_logits)
    known = known_evidence(config.data, config.split) if config.image is None else None
    usable = usable_for(explainers, len(set(partners.images.values())))
    note_unknown(trained.model.familiarity, asked=True)
    words = WordCount.of(trained.model.familiarity, [trained.questions[row].question for row in rows])
    if words is not None:
        print(words, flush=True)
    made = 0
    with (
        result_files(run, SCHEMA) as write,
        warning_file(run) as warnings,
        progress(len(rows), "explaining", "questions") as advance,
    ):
        for batch in _batches(trained, rows, config.at_once):
            findings = examine(trained.model, batch.pixels, [question.question for question in batch.questions])
            for question, finding in zip(batch.questions, findings, strict=True):
                warnings.add({"question_id": question.question_id, "image_id": question.image_id}, finding)
            bound, _ = partners.bind(usable, batch.ids)
            for sample in explain_samples(trained.model, batch, bound, aim, trained.checkpoint):
                photo = small_photo(sample.photo, seen_box(sample.photo.size, preprocessing))
                content = draw_sample(sample, photo, known, config, run / PICTURES)
                write(score_rows(sample), {**content, "warnings": warnings.of(sample.question.question_id)})
                made += 1
                advance()
                answers.append(_answer_cells(sample))
    if not made:
        raise UserError("none of the chosen images could be read; check the image folder in data.root")
    title = "answers of the model, with their probabilities from 0 to 1 (the sigmoid of the logit)"
    heads = ["question_id", "question", "answer", "probability", "runner-up", "probability"]
    print_table(title, heads, answers, text=(1, 2, 4))
    return made


def _answer_cells(sample: ExplainedSample) -> list[str]:
    """Return a sample's line in the printed table."""
    question, answers = sample.question, (sample.answer, sample.runner_up)
    cells = [(each.answer, f"{each.probability:.3f}") if each else ("–", "–") for each in answers]
    return [str(question.question_id), question.question, *cells[0], *cells[1]]


def _batches(trained: TrainedVQA, rows: Sequence[int], size: int) -> Iterator[QuestionBatch]:
    """Yield batches of nearly equal size, at most ``size`` questions each; report truncated questions on stderr."""
    for chunk in even_batches(rows, size):
        for batch in readable(trained.batch, chunk):
            if cut := batch.text.truncated:
                context = trained.model.encoder.text.context_length
                what = f"{cut} questions are longer than the encoder's {context} tokens and were cut off"
                print(what, file=sys.stderr)
            yield batch


def draw_sample(
    sample: ExplainedSample, photo: Photo, known: SplitEvidence | None, config: ExplainConfig, folder: Path
) -> dict[str, Any]:
    """Write the sample's figure, and that of its interaction if the config asks for it and the question has words.

    Returns:
        The content of both figures, for the file of contents.
    """
    figure, name = figure_of(sample, photo, known), f"question_{sample.question.question_id}"
    save(draw(figure, config.overlay, config.scale), folder / name, config.formats)
    words = _merge_rows(sample.pieces[sample.words], sample.interaction[sample.words, sample.patches])
    matrix = np.array([scores for _, scores in words])
    if config.interaction and words:
        shown, answer = (
            [word for word, _ in words],
            f"{sample.target.answer}, probability {sample.target.probability:.3f}",
        )
        question = sample.question.question
        drawn = draw_interaction(figure.photos[0], shown, matrix, sample.grid, config.overlay, question, answer)
        save(drawn, folder / f"{name}_interaction", config.formats)
    return {"name": name, **sample_content(figure, matrix.reshape(-1, *sample.grid))}


def figure_of(sample: ExplainedSample, photo: Photo, known: SplitEvidence | None = None) -> Sample:
    """Return the content of a sample's figure, with the evidence if it is known.

    It leaves out the class, read-out, start and end tokens, and merges sub-words into words.
    """
    pieces = sample.pieces[sample.words]
    texts = {name: merge_clip_pieces(pieces, text[sample.words].tolist()) for name, text in sample.text.items()}
    explanations = [
        Explanation(name, image[sample.patches].reshape(sample.grid), [score for _, score in texts[name]])
        for name, image in sample.image.items()
    ]
    words = [word for word, _ in next(iter(texts.values()))]
    answer, question, evidence = sample.answer, sample.question, []
    if known is not None:
        photo = replace(photo, evidence=known.answer_pixels(question.question_id, question.image_id))
        evidence = known.answer_words(question.question_id, question.question, words)
    note = _caption(sample)
    return Sample(photo, question.question, words, answer.answer, answer.probability, explanations, note, evidence)


def _merge_rows(pieces: Sequence[str], rows: Array) -> list[tuple[str, Array]]:
    """Return each word with the sum of its sub-words' rows, of [n, patches]."""
    columns = [merge_clip_pieces(pieces, column.tolist()) for column in rows.T]
    return [(same[0][0], np.array([score for _, score in same])) for same in zip(*columns, strict=True)]


def _caption(sample: ExplainedSample) -> str:
    """Return the figure's second line: the explained answer, if it isn't the predicted one, and the human answers."""
    parts = []
    if sample.against is not None:
        parts.append(f"explained: {_scored_answer(sample.target)} rather than {_scored_answer(sample.against)}")
    elif sample.target != sample.answer:
        parts.append(f"explained: {_scored_answer(sample.target)}")
    if counts := Counter(str(answer["answer"]) for answer in sample.question.answers).most_common(MOST_ANSWERS):
        parts.append("people: " + ", ".join(f"{answer} ({count})" for answer, count in counts))
    return "; ".join(parts)


def _scored_answer(scored: ScoredAnswer) -> str:
    return with_share(scored.answer, scored.probability)
