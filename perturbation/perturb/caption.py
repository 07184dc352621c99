"""The tests of captions: the pictures, what the model says of them whole, how its words are weighted, and the records.

A picture that people captioned takes part if the model's own caption of it holds a word; others are counted on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipmapper.data.caption_files import CaptionImage
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import split_words, word_weights
from clipmapper.tasks.caption.trained import CaptionSubject, load_caption_subject
from perturbation.config import PerturbCaptionsConfig
from perturbation.perturb.caption_records import CaptionExaminer, WeightedCaptions
from perturbation.perturb.identity import CAPTIONS, digest
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import Entrant
from perturbation.perturb.samples import deal, draw, split_of
from perturbation.removal.caption_engine import CaptionEngine

ENGINE_BATCH = 64  # where the config gives none

Prepared = dict[int, dict[str, Any]]  #: ``ids``, ``caption``, ``words`` and ``weights`` by image id


@dataclass(frozen=True, eq=False)
class CaptionTests:
    """Implements ``perturbation.perturb.lightning.Tests``.

    ``batches`` are rows of the subject's images, of those that people captioned.
    """

    subject: CaptionSubject
    batches: Sequence[Sequence[int]]
    entrants: Sequence[Entrant]
    config: PerturbCaptionsConfig
    steps: Sequence[float]

    @property
    def model(self) -> CLIPMapperCaption:
        return self.subject.model

    @property
    def checkpoint(self) -> Path:
        return self.subject.checkpoint

    @property
    def samples(self) -> Mapping[str, str]:
        """All images, since CIDEr takes its document frequencies from the whole split."""
        return {"images": digest([image.image_id, image.captions] for image in self.subject.images)}

    @property
    def about(self) -> str:
        return f"{sum(map(len, self.batches))} of {len(_captioned(self.subject))} captioned pictures"

    def prepare(self, run: Path) -> Prepared:
        """The captions of the whole pictures, and the weights of their words: all at once, since METEOR starts Java.

        Raises ``UserError`` as ``word_weights``, and where no caption holds a word.
        """
        file = run / CAPTIONS
        if not file.is_file():
            write_json(file, self._worded())
        return {int(key): value for key, value in read_json(file).items()}

    def examine(self, number: int, prepared: Prepared) -> Tables:
        """The records of a batch; none where none of its pictures takes part."""
        ids = [image.image_id for image in self.subject.images]
        batch = self.subject.batch([row for row in self.batches[number] if ids[row] in prepared])
        if batch is None:
            return {}
        known = [prepared[image.image_id] for image in batch.images]
        weights = {name: [each["weights"][name] for each in known] for name in known[0]["weights"]}
        size = self.config.engine_batch or ENGINE_BATCH
        engine = CaptionEngine(self.model, size, self.subject.max_length, self.config.removal.image)
        examiner = CaptionExaminer(self.model, engine, self.entrants, self.config, self.steps)
        return examiner.examine(WeightedCaptions(batch.images, batch.pixels, [each["ids"] for each in known], weights))

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
            if (batch := self.subject.batch(rows)) is not None:
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
        references = {image.image_id: image.captions for image in _captioned(self.subject)}
        names = list(dict.fromkeys(["equal", *self.config.weightings]))
        corpus = build_cider_corpus(references.values()) if "cider" in names else None
        return {name: word_weights(words, references, name, corpus) for name in names}  # type: ignore[arg-type]


def caption_tests(config: PerturbCaptionsConfig, entrants: Sequence[Entrant], steps: Sequence[float]) -> CaptionTests:
    """The tests of the pictures that are drawn of those that people captioned.

    Raises ``UserError`` as ``load_caption_subject`` and ``draw``, and where nobody captioned any picture.
    """
    split = split_of(config)
    subject = load_caption_subject(config, split, config.checkpoint)
    rows = [row for row, image in enumerate(subject.images) if image.captions]
    if not rows:
        raise UserError(f"split={split} has no captions by people to be judged by; choose a split that has them")
    drawn = [rows[place] for place in draw(len(rows), config.samples, config.seed, "captioned pictures")]
    return CaptionTests(subject, deal(drawn, config.batch_samples), entrants, config, steps)


def _captioned(subject: CaptionSubject) -> list[CaptionImage]:
    return [image for image in subject.images if image.captions]
