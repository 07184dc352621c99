"""Explanations of CLIPmapper's answers to questions, and the choice of the answer to explain."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import DoubtfulInput, examine
from clipmapper.explaining.output import seen_box
from clipmapper.explaining.partners import Partners
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import Traced, trace_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA
from clipmapper.text import printable
from explain import AttentionTrace, Explainer, Needs, TraceError
from explain.sample.entry import trace_sample
from explain.sample.traced import Answer, Asked, TracedSample, View, class_of, second_class
from explain.sample.words import as_read
from explain.targets import Target, given, margin, predicted


@dataclass(frozen=True, eq=False)
class Explained:
    """A traced batch with its explanations."""

    traced: Traced
    scores: Mapping[str, Tensor]  #: scores of the joint positions by explainer, [B, N]


def explain(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    target: Target = predicted,
    sample_ids: Sequence[int | str] | None = None,
    checkpoint: Path | None = None,
    more: Needs | None = None,
) -> Explained:
    """Compute the scores of every explainer from one trace of the batch.

    Args:
        model: The model in evaluation mode.
        batch: B questions.
        explainers: Explainers by name.
        target: The logit that is explained.
        sample_ids: Names of the questions, which seed random draws; by default their ids.
        checkpoint: The model's file, which the error message names; None names the questions instead.
        more: Content of the trace in addition to what the explainers need.

    Raises:
        UserError: The trace contains NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values()) | (more or Needs())
    names = batch.ids if sample_ids is None else sample_ids
    try:
        traced = trace_vqa(model, batch.pixels, batch.text, target, needs, names, batch.picture_ids)
        return Explained(traced, {name: each(traced.trace, traced.rows) for name, each in explainers.items()})
    except TraceError as error:
        what = checkpoint or f"questions {batch.ids[0]} to {batch.ids[-1]}"
        raise UserError(f"{what} can't be explained: {error}") from error


def question_partners(trained: TrainedVQA, rows: Sequence[int], seed: int, target: Target = predicted) -> Partners:
    """Return the partners of a run's questions, which are questions about other images.

    Args:
        trained: The model and its questions.
        rows: The run's questions.
        seed: Seed of the draws.
        target: The logit that is explained, as a function of the logits of any batch.
    """
    row_of = {trained.questions[row].question_id: row for row in rows}

    def trace(ids: Sequence[int], needs: Needs) -> AttentionTrace | None:
        batch = trained.batch([row_of[each] for each in ids])
        if batch is None:
            return None
        return trace_vqa(trained.model, batch.pixels, batch.text, target, needs, batch.ids, batch.picture_ids).trace

    return Partners({number: trained.questions[row].image_id for number, row in row_of.items()}, seed, trace)


@dataclass(frozen=True)
class AnswerTarget:
    """The logit that is explained: that of ``answer``, minus that of ``against`` if there is one."""

    answer: int | None = None  #: class; None for the predicted answer
    against: int | None = None  #: class; None for none

    @classmethod
    def of(cls, config: ExplainConfig, answers: tuple[str, ...]) -> AnswerTarget:
        """Look up the config's ``answer`` and ``against`` among the model's answers.

        Raises:
            UserError: The model doesn't have such an answer.
        """
        return cls(_class_of(answers, "answer", config.answer), _class_of(answers, "against", config.against))

    def target(self, model: CLIPMapperVQA, batch: QuestionBatch) -> Target:
        """Return the target of a batch.

        With ``against``, predicted answers are computed here, so that the target has the same classes in every pass.
        Where the predicted answer is ``against`` itself, the explained scalar y is 0; a note on stderr says so.
        """
        if self.against is None:
            return predicted if self.answer is None else given(self.answer)
        if self.answer is not None:
            return margin(self.answer, self.against)
        with torch.no_grad():
            answers = model(batch.pixels, batch.text).argmax(1)
        for row in (answers == self.against).nonzero()[:, 0].tolist():
            what = f"question {batch.ids[row]}: the predicted answer is {model.answers[self.against]} too"
            line = f"{what}, so against={model.answers[self.against]} leaves nothing to explain"
            print(printable(line), file=sys.stderr)
        return margin(answers, self.against)

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the explained scalar of any questions, [B], without a note; predicted answers are those of the logits.

        Args:
            logits: [B, answers].
        """
        answer = logits.argmax(1) if self.answer is None else self.answer
        return (given(answer) if self.against is None else margin(answer, self.against))(logits)


def _class_of(answers: tuple[str, ...], key: str, answer: str | None) -> int | None:
    """Return the class of an answer, None for None."""
    if answer is None or answer in answers:
        return None if answer is None else answers.index(answer)
    close = difflib.get_close_matches(answer.lower(), answers, n=3)
    hint = f"similar ones: {', '.join(close)}" if close else f"it has {', '.join(answers[:5])}, …"
    raise UserError(f"{key}={answer} is not one of the model's {len(answers)} answers; {hint}")


@trace_sample.register
def trace_question(model: CLIPMapperVQA, processor: Any, asked: Asked) -> TracedSample:
    """Trace the answer to a question.

    A question or an image unlike those of the training gives a warning, and so does a question that is cut off.

    Raises:
        ValueError: There is not one image and a question, the target is not one of the model's answers, or an option
            does not fit the model.
        TraceError: A tensor contains NaN or Inf.
    """
    image, question, target = asked.photo(model), asked.question(model), asked.target
    asked.check_no_context(model)
    asked.check_no_layers(model)
    goals = target if isinstance(target, tuple) else () if target is None else (target,)
    classes = [class_of(model.answers, goal) for goal in goals]
    y = predicted if not classes else given(classes[0]) if len(classes) == 1 else margin(*classes)
    weight = next(model.trained.parameters())
    text = model.encoder.tokenize([question]).to(weight.device)
    pixels = model.encoder.pixels([image]).to(weight.device, weight.dtype)
    found = examine(model, pixels, [question])[0].warnings
    if text.truncated:
        found.append(f"the question is longer than the encoder's {model.encoder.text.context_length} tokens: cut off")
    for line in found:
        warnings.warn(line, DoubtfulInput, stacklevel=2)
    traced = trace_vqa(model, pixels, text, y, asked.needs, [0], [0])
    shares = traced.logits[0].float().sigmoid()
    own, *named = (Answer(model.answers[k], float(shares[k])) for k in [int(traced.answers[0]), *classes])
    words = [] if traced.words is None else traced.words[0]
    return TracedSample(
        traced=traced,
        photos=[image],
        seen=[seen_box(image.size, model.encoder.vision.visual.preprocess_cfg)],
        views=[View(0)],
        words=words,
        question=question,
        answer=own,
        explained=named[0] if named else own,
        over=named[1] if len(named) > 1 else None,
        runner_up=second_class(model.answers, shares),
        read=as_read(question, [word for word, _ in words]),
    )
