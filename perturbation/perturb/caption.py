"""The tests of captions: the pictures, what the model says of them whole, how its words are weighted, and the records.

A picture that people captioned takes part if the model's own caption of it holds a word; others are counted on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipmapper.data.caption_files import CaptionImage
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import sentence_relevance, split_words, sub_word_weights, word_weights
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner, load_trained
from clipmapper.training.batches import even_batches
from explain import Needs, TraceError
from perturbation.config import PerturbCaptionsConfig
from perturbation.measures.base import ExplainedBatch, Measure, ScoredBy, TokenScores
from perturbation.perturb.candidates import Candidate
from perturbation.perturb.identity import CAPTIONS, digest
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import record_batch
from perturbation.perturb.samples import sample_rows, split_of
from perturbation.removal.caption_engine import CaptionEngine, CaptionReader, CaptionSamples

ENGINE_BATCH = 64  # where the config gives none

Prepared = dict[int, dict[str, Any]]  #: ``ids``, ``caption``, ``words`` and ``weights`` by image id


@dataclass(frozen=True, eq=False)
class CaptionTests:
    """Implements ``ExplanationTests``.

    ``batches`` are rows of the trained's images, of those that people captioned; what is prepared are the model's
    captions of them and the weights of their words.
    """

    trained: TrainedCaptioner
    batches: Sequence[Sequence[int]]
    candidates: Sequence[Candidate]
    measures: Mapping[str, Measure]
    config: PerturbCaptionsConfig

    @property
    def model(self) -> CLIPMapperCaption:
        return self.trained.model

    @property
    def checkpoint(self) -> Path:
        return self.trained.checkpoint

    @property
    def samples(self) -> Mapping[str, str]:
        """All images, since CIDEr takes its document frequencies from the whole split."""
        return {"images": digest([image.image_id, image.captions] for image in self.trained.images)}

    @property
    def about(self) -> str:
        return f"{sum(map(len, self.batches))} of {len(_captioned(self.trained))} captioned pictures"

    def prepare(self, run: Path) -> Prepared:
        """The captions of the whole pictures, and the weights of their words: all at once, since METEOR starts Java.

        Raises ``UserError`` as ``word_weights``, and where no caption holds a word.
        """
        file = run / CAPTIONS
        if not file.is_file():
            write_json(file, self._worded())
        return {int(key): value for key, value in read_json(file).items()}

    def record(self, number: int, prepared: Prepared) -> Tables:
        """The records of a batch; none where none of its pictures takes part."""
        ids = [image.image_id for image in self.trained.images]
        batch = self.trained.batch([row for row in self.batches[number] if ids[row] in prepared])
        if batch is None:
            return {}
        known = [prepared[image.image_id] for image in batch.images]
        captions = [each["ids"] for each in known]
        tokens = self._explained(batch, captions, [each["weights"] for each in known])
        start = sum(map(len, self.batches[:number]))
        explained = ExplainedBatch("image", [i.image_id for i in batch.images], "captions", {"image": tokens}, start)
        engine = CaptionEngine(
            self.model, self.config.engine_batch or ENGINE_BATCH, self.trained.max_length, self.config.removal.image
        )
        texts = [self.model.vocabulary.text(ids) for ids in captions]
        samples = CaptionSamples(batch.pixels, [image.captions for image in batch.images], texts)
        return record_batch(self.measures, explained, CaptionReader(engine), samples, None)

    def _explained(
        self, batch: CaptionedBatch, captions: Sequence[Sequence[int]], weights: Sequence[Mapping[str, Sequence[float]]]
    ) -> TokenScores:
        """Eq. 20 for every explainer and weighting: the patches' part in the whole caption, [B, P].

        Controls keep their name and weigh all words equally; what others are called names the weighting.

        Raises:
            UserError: an explainer lacks something in this batch.
        """
        needs = Needs.of(candidate.explainer for candidate in self.candidates)
        names = [image.image_id for image in batch.images]
        by_weighting = {name: self._of_sub_words(captions, [each[name] for each in weights]) for name in weights[0]}
        found: dict[ScoredBy, Tensor] = {}
        try:
            traced = trace_captions(self.model, batch.pixels, captions, needs, names)
            for candidate in self.candidates:
                rows = traced.scores(candidate.explainer(traced.trace, traced.rows), "image")
                for name, weighting in self._weighted(candidate.name).items():
                    found[name] = sentence_relevance(rows, by_weighting[weighting].to(rows), traced.sample, len(names))
        except TraceError as error:
            raise UserError(f"captions of images {names[0]} to {names[-1]} can't be explained: {error}") from error
        scores = {name: each.double().cpu().numpy() for name, each in found.items()}
        return TokenScores(np.ones_like(next(iter(scores.values())), dtype=np.bool_), scores)

    def _weighted(self, name: ScoredBy) -> dict[ScoredBy, str]:
        """What an explainer's scores are called under each weighting."""
        if name.name in self.config.controls:
            return {name: "equal"}
        return {ScoredBy(f"{name.name} {weighting}", name.seed): weighting for weighting in self.config.weightings}

    def _of_sub_words(self, captions: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]) -> Tensor:
        """The weights of all sub-words, caption after caption, [M]."""
        tokenizer = self.model.encoder.tokenizer
        pairs = zip(captions, weights, strict=True)
        return torch.tensor([w for ids, each in pairs for w in sub_word_weights(split_words(ids, tokenizer), each)])

    def _worded(self) -> Prepared:
        said = self._whole()
        tokenizer = self.model.encoder.tokenizer
        words = {key: [word.text for word in split_words(ids, tokenizer)] for key, ids in said.items()}
        weights = self._weights(words)
        return {
            key: {
                "ids": ids,
                "caption": self.model.vocabulary.text(ids),
                "words": words[key],
                "weights": {name: found[key] for name, found in weights.items()},
            }
            for key, ids in said.items()
        }

    def _whole(self) -> dict[int, list[int]]:
        """The token ids of every picture's caption that holds any, by image id."""
        said: dict[int, list[int]] = {}
        for rows in self.batches:
            if (batch := self.trained.batch(rows)) is not None:
                said |= zip((image.image_id for image in batch.images), batch.captions, strict=True)
        found = {key: ids for key, ids in said.items() if ids}
        if not found:
            raise UserError("no picture could be read of which the model says a word; check data.root, or train longer")
        if len(found) < len(said):
            empty = len(said) - len(found)
            print(f"left out: {empty} of {len(said)} pictures, of which the model says nothing", file=sys.stderr)
        return found

    def _weights(self, words: Mapping[int, Sequence[str]]) -> dict[str, dict[int, list[float]]]:
        """By weighting; the equal one is always there, for the controls."""
        references = {image.image_id: image.captions for image in _captioned(self.trained)}
        names = list(dict.fromkeys(["equal", *self.config.weightings]))
        corpus = build_cider_corpus(references.values()) if "cider" in names else None
        return {name: word_weights(words, references, name, corpus) for name in names}  # type: ignore[arg-type]


def build_tests(
    config: PerturbCaptionsConfig, candidates: Sequence[Candidate], measures: Mapping[str, Measure]
) -> CaptionTests:
    """The tests of the pictures that are drawn of those that people captioned.

    Raises:
        UserError: as ``load_trained`` and ``sample_rows``, and where nobody captioned any picture.
    """
    split = split_of(config)
    trained = load_trained(config, split, config.checkpoint)
    rows = [row for row, image in enumerate(trained.images) if image.captions]
    if not rows:
        raise UserError(f"split={split} has no captions by people to be judged by; choose a split that has them")
    places = sample_rows(len(rows), config.samples, config.seed, "captioned pictures")
    batches = even_batches([rows[place] for place in places], config.batch_samples)
    return CaptionTests(trained, batches, candidates, measures, config)


def _captioned(trained: TrainedCaptioner) -> list[CaptionImage]:
    return [image for image in trained.images if image.captions]
