"""The perturbation tests of captions (docs/method.md, Captions).

The model captions every image once with nothing removed. Its words are explained and weighted, and the patches are
removed in the order of their relevance to the whole caption. An image is tested if it has captions by people and the
model's caption has at least one word; the number of images without a word is printed on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipmapper.choice import describe
from clipmapper.console import progress
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.explaining.partners import Partners
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.process.together import gathered, mine, rank, shared_out
from clipmapper.tasks.caption.explaining import caption_partners
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import sentence_relevance, split_words, sub_word_weights, word_weights
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner, load_trained
from clipmapper.training.batches import even_batches
from clipmapper.training.identity import digest, digest_of_file
from explain import Explainer, Needs, TraceError
from perturbation.config import PerturbCaptionsConfig
from perturbation.measures.base import ExplainedBatch, Measure, ScoredBy, TokenScores
from perturbation.perturb.candidates import Candidate, bind, names_of
from perturbation.perturb.identity import IMAGES, digest_of_images
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import record_batch
from perturbation.perturb.samples import sample_rows, split_of
from perturbation.perturb.stored import CAPTIONS, read_captions, write_captions
from perturbation.removal.caption_engine import CaptionEngine, CaptionReader, CaptionSamples

ENGINE_BATCH = 64  # used if the config gives no batch size

Prepared = dict[int, dict[str, Any]]  #: a dict with ``ids``, ``caption``, ``words`` and ``weights`` for each image id


@dataclass(frozen=True, eq=False)
class CaptionTests:
    """The perturbation tests of captions; implements ``ExplanationTests``.

    ``batches`` are rows of ``trained.images``, only of images with captions by people. The prepared data are the
    model's captions of these images and the weights of their words.
    """

    unit = "images"

    trained: TrainedCaptioner
    batches: Sequence[Sequence[int]]
    candidates: Sequence[Candidate]
    measures: Mapping[str, Measure]
    config: PerturbCaptionsConfig

    @property
    def model(self) -> CLIPMapperCaption:
        """The captioning model."""
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
        """Hashes of the checkpoint, the captions of the whole split (CIDEr depends on all), and the tested images."""
        return {
            "checkpoint": digest_of_file(self.trained.checkpoint),
            "images": digest([image.image_id, image.captions] for image in self.trained.images),
            IMAGES: digest_of_images(self.images, Path(self.config.paths.cache)),
        }

    @property
    def images(self) -> list[ImageSource]:
        """The tested images."""
        return [self.trained.images[row].image for rows in self.batches for row in rows]

    @property
    def about(self) -> str:
        """The number of tested images and the explainers, as text for the user."""
        count = f"{sum(map(len, self.batches))} of {len(_images_with_references(self.trained))} captioned images"
        return f"{count}; explainers: {names_of(self.candidates)}"

    @property
    def entries(self) -> Mapping[str, Any]:
        """No further entries."""
        return {}

    @cached_property
    def _partners(self) -> Partners:
        return caption_partners(self.trained, [row for rows in self.batches for row in rows], self.config.seed)

    def prepare(self, run: Path) -> Prepared:
        """Caption the images with nothing removed and compute the weights of the words, or read both from ``run``.

        The processes share the images out. The first one computes the weights of all words together, because METEOR
        starts a Java process; the others return nothing.

        Raises:
            UserError: A weighting can't be computed (METEOR needs Java), or no caption has a word.
        """
        said = None if gathered((run / CAPTIONS).is_file())[0] else self._caption_images()
        if rank() > 0:
            return {}
        if said is not None:
            write_captions(run, self._with_weights(said))
        return read_captions(run)

    def record(self, number: int, prepared: Prepared) -> Tables:
        """Return the records of a batch; none if no image of it is tested."""
        ids = [image.image_id for image in self.trained.images]
        batch = self.trained.batch([row for row in self.batches[number] if ids[row] in prepared])
        if batch is None:
            return {}
        known = [prepared[image.image_id] for image in batch.images]
        batch = replace(batch, captions=tuple(each["ids"] for each in known))
        candidates = bind(self.candidates, self._partners, batch.items)
        tokens = self._score_patches(batch, candidates, [each["weights"] for each in known])
        start = sum(map(len, self.batches[:number]))
        partners = {name: each.partners for each in candidates for name in self._weighting_by_name(each.name)}
        seed = self.config.seed
        explained = ExplainedBatch("image", batch.ids, "captions", {"image": tokens}, start, seed, partners)
        size, length = self.config.engine_batch or ENGINE_BATCH, self.trained.max_length
        engine = CaptionEngine(self.model, size, length, self.config.removal.image, seed)  # type: ignore[arg-type]
        texts = [self.model.vocabulary.text(ids) for ids in batch.captions]
        samples = CaptionSamples(batch.pixels, [image.captions for image in batch.images], texts, batch.ids)
        return record_batch(self.measures, explained, CaptionReader(engine), samples, None)

    def _score_patches(
        self, batch: CaptionedBatch, candidates: Sequence[Candidate], weights: Sequence[Mapping[str, Sequence[float]]]
    ) -> TokenScores:
        """Return the patches' relevance to the whole caption, [B, P], for every explainer and weighting.

        The relevance of a caption is the weighted sum of its words' relevance (Huang et al. 2023, Eq. 20).

        Raises:
            UserError: An explainer can't explain this batch.
        """
        needs, names, captions = Needs.of(each.explainer for each in candidates), batch.ids, batch.captions
        by_weighting = {name: self._sub_word_weights(captions, [each[name] for each in weights]) for name in weights[0]}
        found: dict[ScoredBy, Tensor] = {}
        try:
            traced = trace_captions(self.model, batch.pixels, captions, needs, names, picture_ids=names)
            for candidate in candidates:
                rows = traced.scores(candidate.explainer(traced.trace, traced.rows), "image")
                for name, weighting in self._weighting_by_name(candidate.name).items():
                    found[name] = sentence_relevance(rows, by_weighting[weighting].to(rows), traced.sample, len(names))
        except TraceError as error:
            raise UserError(f"captions of images {names[0]} to {names[-1]} can't be explained: {error}") from error
        scores = {name: each.double().cpu().numpy() for name, each in found.items()}
        return TokenScores(np.ones_like(next(iter(scores.values())), dtype=np.bool_), scores)

    def _weighting_by_name(self, name: ScoredBy) -> dict[ScoredBy, str]:
        """Return the weightings of an explainer by the name of the resulting scores.

        A control keeps its name and weights all words equally; the names of other explainers include the weighting.
        """
        if name.name in self.config.controls:
            return {name: "equal"}
        return {name._replace(name=f"{name.name} {weighting}"): weighting for weighting in self.config.weightings}

    def _sub_word_weights(self, captions: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]) -> Tensor:
        """Return the weights of all M sub-words, caption by caption, [M]."""
        tokenizer = self.model.encoder.tokenizer
        pairs = zip(captions, weights, strict=True)
        return torch.tensor([w for ids, each in pairs for w in sub_word_weights(split_words(ids, tokenizer), each)])

    def _with_weights(self, said: Mapping[int, list[int]]) -> Prepared:
        tokenizer = self.model.encoder.tokenizer
        words = {key: [word.text for word in split_words(ids, tokenizer)] for key, ids in said.items()}
        weights = self._word_weights(words)
        return {
            key: {
                "ids": ids,
                "caption": self.model.vocabulary.text(ids),
                "words": words[key],
                "weights": {name: found[key] for name, found in weights.items()},
            }
            for key, ids in said.items()
        }

    def _caption_images(self) -> dict[int, list[int]]:
        """Caption the images with nothing removed; return the token ids of each caption that has any, by image id."""
        with progress(sum(map(len, mine(self.batches))), "captioning", "images") as advance:

            def captioned(rows: Sequence[int]) -> list[tuple[int, list[int]]]:
                batch = self.trained.batch(rows)
                advance(len(rows))
                return [] if batch is None else list(zip(batch.ids, batch.captions, strict=True))

            said = dict(pair for some in shared_out(self.batches, captioned) for pair in some)
        found = {key: ids for key, ids in said.items() if ids}
        if not found:
            raise UserError("the model's caption has no word for any readable image; check data.root, or train longer")
        if len(found) < len(said) and rank() == 0:
            empty = len(said) - len(found)
            print(f"left out: {empty} of {len(said)} images, for which the model's caption is empty", file=sys.stderr)
        return found

    def _word_weights(self, words: Mapping[int, Sequence[str]]) -> dict[str, dict[int, list[float]]]:
        """Return the weights of each caption's words, by weighting and image id (Huang et al. 2023, Eq. 21).

        The weighting ``equal`` is always included, because the controls use it.
        """
        references = {image.image_id: image.captions for image in _images_with_references(self.trained)}
        names = list(dict.fromkeys(["equal", *self.config.weightings]))
        corpus = build_cider_corpus(references.values()) if "cider" in names else None
        return {name: word_weights(words, references, name, corpus) for name in names}  # type: ignore[arg-type]


def build_tests(
    config: PerturbCaptionsConfig, candidates: Sequence[Candidate], measures: Mapping[str, Measure]
) -> CaptionTests:
    """Load the model, draw the images to test from those with captions by people, and return their tests.

    Raises:
        UserError: No checkpoint fits, the split has fewer images than ``config.samples``, or it has no captions by
            people.
    """
    return tests_of(load_trained(config, split_of(config), config.checkpoint), config, candidates, measures)


def tests_of(
    trained: TrainedCaptioner,
    config: PerturbCaptionsConfig,
    candidates: Sequence[Candidate],
    measures: Mapping[str, Measure],
) -> CaptionTests:
    """Draw the images to test from those of a loaded model; the errors are those of :func:`build_tests`."""
    rows = [row for row, image in enumerate(trained.images) if image.captions]
    if not rows:
        raise UserError(
            f"split={split_of(config)} has no captions by people to compare with; choose a split that has them"
        )
    places = sample_rows(len(rows), config.samples, config.seed, "captioned images")
    batches = even_batches([rows[place] for place in places], config.batch_samples)
    return CaptionTests(trained, batches, candidates, measures, config)


def _images_with_references(trained: TrainedCaptioner) -> list[CaptionImage]:
    return [image for image in trained.images if image.captions]
