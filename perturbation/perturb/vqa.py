"""The perturbation tests of answers: which questions are tested, and the explanations of a batch of questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from clipmapper.choice import describe
from clipmapper.data.records import ImageSource, Question
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import WordCount
from clipmapper.explaining.partners import Partners
from clipmapper.process.together import rank
from clipmapper.tasks.vqa.explaining import explain, question_partners
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA, load_trained
from clipmapper.training.batches import even_batches
from clipmapper.training.identity import digest, digest_of_file
from explain import Explainer
from explain.targets import Target, given, margin
from perturbation.config import PerturbConfig
from perturbation.measures.base import ExplainedBatch, Measure, TokenScores
from perturbation.perturb.candidates import Candidate, bind, names_of
from perturbation.perturb.identity import IMAGES, digest_of_images
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import record_batch
from perturbation.perturb.samples import sample_rows, split_of
from perturbation.perturb.stored import CHOSEN, read_engine_batch, write_engine_batch
from perturbation.removal.batch_size import fastest
from perturbation.removal.engine import Engine, Removal, VQAReader
from perturbation.removal.reader import Modality

MODALITIES: tuple[Modality, ...] = ("image", "text")


@dataclass(frozen=True, eq=False)
class QuestionTests:
    """The perturbation tests of answers; implements ``ExplanationTests``.

    ``batches`` are rows of ``trained.questions``. The prepared data are the engine's batch size.
    """

    unit = "questions"

    trained: TrainedVQA
    batches: Sequence[Sequence[int]]
    candidates: Sequence[Candidate]
    measures: Mapping[str, Measure]
    config: PerturbConfig

    @property
    def model(self) -> CLIPMapperVQA:
        """The VQA model."""
        return self.trained.model

    @property
    def name(self) -> str:
        """The checkpoint, with what is known about its training."""
        return f"checkpoint: {describe(self.trained.checkpoint)}"

    @property
    def explainers(self) -> Iterable[Explainer]:
        """The explainers under test."""
        return [each.explainer for each in self.candidates]

    @property
    def content(self) -> Mapping[str, str]:
        """Hashes of the checkpoint, of the tested questions with their human answers, and of their images."""
        return {
            "checkpoint": digest_of_file(self.trained.checkpoint),
            "questions": digest(_content(question) for question in self._questions),
            IMAGES: digest_of_images(self.images, Path(self.config.paths.cache)),
        }

    @property
    def images(self) -> list[ImageSource]:
        """The images of the tested questions, once each."""
        return [self.trained.images[i] for i in dict.fromkeys(question.image_id for question in self._questions)]

    @property
    def about(self) -> str:
        """The number of tested questions, the explainers and the unknown words, as text for the user."""
        count = f"{len(self._questions)} of {len(self.trained.questions)} questions"
        words = "" if self._words is None else f"\n{self._words}"
        return f"{count}; explainers: {names_of(self.candidates)}{words}"

    @property
    def entries(self) -> Mapping[str, Any]:
        """The entry ``question_words``: how many words of the questions no training question has; null if not known."""
        return {"question_words": None if self._words is None else self._words.entry()}

    @cached_property
    def _words(self) -> WordCount | None:
        return WordCount.of(self.model.familiarity, [question.question for question in self._questions])

    @property
    def _questions(self) -> list[Question]:
        return [self.trained.questions[row] for rows in self.batches for row in rows]

    @cached_property
    def _partners(self) -> Partners:
        rows = [row for rows in self.batches for row in rows]
        target = self.config.target
        return question_partners(self.trained, rows, self.config.seed, lambda y: target_of(target, y)(y))

    def prepare(self, run: Path) -> int:
        """Return the engine's batch size: from the config, from the resumed run, or the fastest on this machine.

        Only the first process measures it; the others return 0.
        """
        if self.config.engine_batch is not None:
            return self.config.engine_batch
        if rank() > 0:
            return 0
        if not (run / CHOSEN).is_file():
            first = self.trained.batch(self.batches[0])
            write_engine_batch(run, 32 if first is None else fastest(self.model, first))
        return read_engine_batch(run)

    def record(self, number: int, prepared: int) -> Tables:
        """Return the records of a batch; none if no image of it is readable."""
        batch = self.trained.batch(self.batches[number])
        if batch is None:
            return {}
        how = self.config.removal
        removal = Removal(how.image, how.text, self.config.seed)  # type: ignore[arg-type]
        reader = VQAReader(Engine(self.model, prepared, removal))
        samples = reader.samples(batch)
        target = target_of(self.config.target, samples.inputs.logits)
        modalities = [modality for modality in MODALITIES if modality in self.config.modality]
        start = sum(map(len, self.batches[:number]))
        candidates = bind(self.candidates, self._partners, batch.ids)
        explained = explained_questions(self.model, batch, candidates, target, modalities, start, self.config.seed)
        return record_batch(self.measures, explained, reader, samples, samples.inputs.answers)


def build_tests(
    config: PerturbConfig, candidates: Sequence[Candidate], measures: Mapping[str, Measure]
) -> QuestionTests:
    """Load the model, draw the questions to test, and return their tests.

    Raises:
        UserError: No checkpoint fits, the split has fewer questions than ``config.samples``, or a question has no human
            answers.
    """
    return tests_of(load_trained(config, split_of(config), config.checkpoint), config, candidates, measures)


def tests_of(
    trained: TrainedVQA, config: PerturbConfig, candidates: Sequence[Candidate], measures: Mapping[str, Measure]
) -> QuestionTests:
    """Draw the questions to test from those of a loaded model; the errors are those of :func:`build_tests`."""
    rows = sample_rows(len(trained.questions), config.samples, config.seed, "questions")
    without = [trained.questions[row].question_id for row in rows if not trained.questions[row].answers]
    if without:
        raise UserError(
            f"split={split_of(config)}: question {without[0]} has no human answers to compare with; "
            "choose a split that has them"
        )
    return QuestionTests(trained, even_batches(rows, config.batch_samples), candidates, measures, config)


def explained_questions(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    candidates: Sequence[Candidate],
    target: Target,
    modalities: Sequence[Modality] = MODALITIES,
    start: int = 0,
    seed: int = 0,
) -> ExplainedBatch:
    """Score the tokens of a batch with every candidate, all from one trace of the model.

    A modality has the scores of the candidates whose explainer scores it; it is left out if there is none.

    Args:
        model: The VQA model.
        batch: The questions.
        candidates: The explainers under test.
        target: The logit or difference of logits to explain.
        modalities: The modalities whose scores are returned.
        start: Number of samples in the batches before this one.
        seed: Seed of the random order of equal scores.

    Raises:
        UserError: An explainer can't explain this batch.
    """
    explainers = {str(candidate.name): candidate.explainer for candidate in candidates}
    explained = explain(model, batch, explainers, target)
    traced = explained.traced
    tokens = {
        modality: TokenScores(
            traced.scores(traced.removable, modality).cpu().numpy(),
            {
                candidate.name: traced.scores(explained.scores[str(candidate.name)], modality).double().cpu().numpy()
                for candidate in candidates
                if modality in candidate.explainer.modalities
            },
        )
        for modality in modalities
        if any(modality in candidate.explainer.modalities for candidate in candidates)
    }
    partners = {candidate.name: candidate.partners for candidate in candidates}
    return ExplainedBatch("question", batch.ids, "answers", tokens, start, seed, partners)


def target_of(name: str, logits: Tensor) -> Target:
    """Return the target to explain: the predicted answer's logit, or its margin over the second-best answer.

    Args:
        name: ``predicted`` or ``margin``.
        logits: [B, answers].

    Raises:
        UserError: The target is ``margin``, but the model knows only one answer.
    """
    if name == "predicted":
        return given(logits.argmax(1))
    if logits.shape[1] < 2:
        raise UserError("target=margin: the model knows only one answer; choose target=predicted")
    best, second = logits.topk(2).indices.unbind(1)
    return margin(best, second)


def _content(question: Question) -> list[object]:
    answers = [answer.get("answer") for answer in question.answers]
    return [question.question_id, question.image_id, question.question, answers]
