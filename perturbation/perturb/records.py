"""What is recorded of a batch of questions: curves, ERASER and single-token measures, and bounds of any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from torch import Tensor

from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import Traced
from clipmapper.tasks.vqa.trained import QuestionBatch
from explain import Explainer, TraceError
from explain.targets import Target, given, margin
from perturbation.config import PerturbConfig
from perturbation.measures.ceiling import all_subsets, bounds, few_enough
from perturbation.measures.faithfulness import pearson, spearman, strongest_tokens, violations
from perturbation.measures.greedy import greedy_masks
from perturbation.perturb.parts import CEILING, FAITHFULNESS, SAMPLES, Tables
from perturbation.removal.engine import Engine, Modality, Whole
from perturbation.removal.masks import (
    Answers,
    Array,
    Mask,
    Name,
    TokenScores,
    check_scores_of,
    curve_masks,
    eraser_masks,
    read_masks,
    single_masks,
)

MODALITIES: tuple[Modality, ...] = ("image", "text")


@dataclass(frozen=True)
class Entrant:
    """An explainer under test; ``seed`` tells the random orders apart, and is 0 for all others."""

    name: str
    seed: int
    explainer: Explainer

    @property
    def label(self) -> str:
        return f"{self.name} (seed {self.seed})" if self.seed else self.name


@dataclass(frozen=True, eq=False)
class Examiner:
    """Puts batches of questions to the tests that a config asks for."""

    model: CLIPMapperVQA
    engine: Engine
    entrants: Sequence[Entrant]
    config: PerturbConfig
    steps: Sequence[float]

    def examine(self, batch: QuestionBatch, searched: int) -> Tables:
        """The records of a batch.

        Args:
            batch: The questions.
            searched: How many of them, from the first on, are searched for the best removals.

        Raises:
            UserError: an explainer lacks something in this batch, or gives scores that cannot be ranked.
        """
        whole = self.engine.whole(batch.pixels, batch.text)
        traced, scores = self._explained(batch, whole)
        tables: Tables = {}
        for modality in MODALITIES:
            if modality in self.config.modality:
                tokens = tokens_of(traced, scores, modality)
                check_scores_of(tokens, modality, [f"question {number}" for number in batch.ids])
                found = _Modality(self, batch.questions, whole, modality, tokens).tables(searched)
                tables = {kind: [*tables.get(kind, []), *found[kind]] for kind in found}
        return tables

    def _explained(self, batch: QuestionBatch, whole: Whole) -> tuple[Traced, Mapping[str, Tensor]]:
        explainers = {entrant.label: entrant.explainer for entrant in self.entrants}
        try:
            explained = explain(self.model, batch, explainers, target_of(self.config.target, whole.logits))
        except TraceError as error:
            first, last = batch.ids[0], batch.ids[-1]
            raise UserError(f"questions {first} to {last} cannot be explained: {error}") from error
        return explained.traced, explained.scores


def target_of(name: str, logits: Tensor) -> Target:
    """What is explained: the logit of the preferred answer, or its margin over the runner-up."""
    if name == "predicted":
        return given(logits.argmax(1))
    if logits.shape[1] < 2:
        raise UserError("target=margin: the model knows one answer only; choose target=predicted")
    best, second = logits.topk(2).indices.unbind(1)
    return margin(best, second)


def tokens_of(traced: Traced, scores: Mapping[str, Tensor], modality: str) -> TokenScores:
    """One modality's part of the scores [B, N] of each explainer."""
    removable = traced.scores(traced.removable, modality).cpu().numpy()
    return TokenScores(
        removable, {name: traced.scores(each, modality).double().cpu().numpy() for name, each in scores.items()}
    )


@dataclass(frozen=True, eq=False)
class _Modality:
    """One modality's tests of a batch."""

    examiner: Examiner
    questions: Sequence[Question]
    whole: Whole
    modality: Modality
    tokens: TokenScores
    accuracies: dict[tuple[int, int], float] = field(default_factory=dict)  #: known so far, by question and answer

    def tables(self, searched: int) -> Tables:
        config, entrants = self.examiner.config, self.examiner.entrants
        masks: dict[Name, Mask] = dict(curve_masks(self.tokens, self.examiner.steps, config.direction))
        if config.eraser:
            masks |= eraser_masks(self.tokens, config.eraser)
        if config.faithfulness:
            masks["single",] = single_masks(self.tokens.removable)
        places = self._searched(searched)
        if places:
            masks |= self._ceiling_masks(places)
        said = read_masks(self.examiner.engine, self.whole, self.modality, self.whole.answers, masks)
        return {
            SAMPLES: [self._curve(entrant, d, said) for entrant in entrants for d in config.direction],
            FAITHFULNESS: [
                self._measures(entrant, said) for entrant in entrants if config.eraser or config.faithfulness
            ],
            CEILING: [self._ceiling(places, said)] if places else [],
        }

    def _curve(self, entrant: Entrant, direction: str, said: Mapping[Name, Answers]) -> pa.Table:
        answers = said["curve", entrant.label, direction]
        return self._table(
            entrant,
            direction=pa.array([direction] * len(self.questions)),
            answers=pa.array([[self._spelt(a) for a in row] for row in answers.preferred]),
            correct=_lists(self._correct(answers)),
            probability=_lists(answers.probability),
        )

    def _measures(self, entrant: Entrant, said: Mapping[Name, Answers]) -> pa.Table:
        scores, removable = self.tokens.scores[entrant.label], self.tokens.removable
        full = _full(self.whole)
        columns: dict[str, pa.Array] = {"full": pa.array(full)}
        for kind in ("without_top", "only_top"):
            if (kind, entrant.label) in said:
                columns[kind] = _lists(said[kind, entrant.label].probability)
        if ("single",) in said:
            without = said["single",].probability
            strongest = np.maximum(strongest_tokens(scores, removable), 0)[:, None]
            found = violations(scores, removable, full, np.take_along_axis(without, strongest, axis=1)[:, 0])
            effects = full[:, None] - without
            columns["violation"] = pa.array(found)
            columns["pearson"] = pa.array(pearson(scores, effects, removable))
            columns["spearman"] = pa.array(spearman(scores, effects, removable))
        return self._table(entrant, **columns)

    def _searched(self, count: int) -> list[int]:
        """Whose ceiling is looked for, of the first ``count``: all pictures, and the questions of few sub-words."""
        if self.modality == "image":
            return list(range(min(count, len(self.questions))))
        return few_enough(self.tokens.removable[:count], self.examiner.config.ceiling.words)

    def _ceiling_masks(self, places: Sequence[int]) -> dict[Name, Mask]:
        removable = self.tokens.removable
        if self.modality == "text":
            return {("all",): all_subsets(removable, places)}
        draws = [f"{self.examiner.config.seed}/{question.question_id}" for question in self.questions]
        searched = np.isin(np.arange(len(removable)), places)[:, None]
        return greedy_masks(self._probability, removable & searched, self.examiner.steps, draws)

    def _probability(self, kept: Mask) -> Array:
        masks: dict[Name, Mask] = {("kept",): kept}
        said = read_masks(self.examiner.engine, self.whole, self.modality, self.whole.answers, masks)
        return said["kept",].probability

    def _ceiling(self, places: Sequence[int], said: Mapping[Name, Answers]) -> pa.Table:
        """The lowest, mean and highest curves of the samples at ``places``, from the answers to ``_ceiling_masks``."""
        rows: list[dict[str, object]] = [
            {"question_id": self.questions[b].question_id, "modality": self.modality} for b in places
        ]
        names: list[Name] = [("all",)] if self.modality == "text" else [("lowest",), ("random",), ("highest",)]
        correct = {name: self._correct(said[name]) for name in names}
        for measure, values in {"correct": correct, "probability": {n: said[n].probability for n in names}}.items():
            for b, row in zip(places, rows, strict=True):
                ends = self._ends({name[0]: each[b] for name, each in values.items()}, b)
                row |= {f"{end}_{measure}": curve.tolist() for end, curve in ends.items()}
        return pa.Table.from_pylist(rows)

    def _ends(self, values: Mapping[str, Array], b: int) -> dict[str, Array]:
        """Sample b's curves, [S] each."""
        steps = self.examiner.steps
        if self.modality == "text":
            return bounds(values["all"][: 2 ** int(self.tokens.removable[b].sum())], steps)
        random = values["random"].reshape(-1, len(steps)).mean(axis=0)
        return {"lowest": values["lowest"], "mean": random, "highest": values["highest"]}

    def _table(self, entrant: Entrant, **columns: pa.Array) -> pa.Table:
        count = len(self.questions)
        about = {
            "question_id": pa.array([question.question_id for question in self.questions]),
            "modality": pa.array([self.modality] * count),
            "explainer": pa.array([entrant.name] * count),
            "seed": pa.array([entrant.seed] * count),
        }
        return pa.table(about | columns)

    def _correct(self, answers: Answers) -> Array:
        """The soft VQA accuracy of every answer given, [B, M]."""
        correct = np.empty(answers.preferred.shape)
        for b, preferred in enumerate(answers.preferred):
            for answer in np.unique(preferred):
                correct[b, preferred == answer] = self._accuracy(b, int(answer))
        return correct

    def _accuracy(self, b: int, answer: int) -> float:
        if (b, answer) not in self.accuracies:
            self.accuracies[b, answer] = vqa_accuracy(self._spelt(answer), self.questions[b].answers)
        return self.accuracies[b, answer]

    def _spelt(self, answer: int) -> str:
        return self.examiner.model.answers[answer]


def _full(whole: Whole) -> Array:
    """The probability of every sample's preferred answer with nothing removed, [B]."""
    return whole.logits.amax(1).float().sigmoid().double().cpu().numpy()


def _lists(values: Array) -> pa.ListArray:
    """[B, M] as B lists."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, values.ravel())
