"""The explanations of the words of captions that any model generates, compared with the objects that the words name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clipmapper.any_model.explainers import usable
from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.any_model.samples import Sample
from clipmapper.console import progress
from clipmapper.data.datasets import load_captions_of
from clipmapper.data.shapes.caption_truth import KnownScene, check_caption
from clipmapper.data.shapes.caption_words import named_objects, read_scenes
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import scoring
from clipmapper.process import together
from clipmapper.text import printable
from clipmapper.training.batches import in_order
from explain import Explainer, Needs
from explain.adapters import trace_hugging_face
from explain.sample.inputs import processed
from explain.sample.tiles import seen_box
from explain.targets import answer
from explain.traced import Traced
from perturbation.arrays import Array, Mask
from perturbation.config import LocaliseModelConfig
from perturbation.localise.agreement import check_images, check_model_and_texts
from perturbation.localise.caption import JudgedWords, write_report
from perturbation.localise.deletion import DELETION
from perturbation.localise.words import RANDOM
from perturbation.pairs.samples import Pair, first_pair, read_pairs
from perturbation.pairs.scorers.choose import scorer_of
from perturbation.pairs.scorers.generating import AskedAnswer, GeneratingScorer
from perturbation.pairs.units import cells
from perturbation.removal.filling import Filler


def run_localisation(config: LocaliseModelConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Compare word explanations with the named objects; write ``word_localisation`` files, print the table.

    Raises:
        UserError: The data has no evidence, the model generates no text, or no word can be judged.
    """
    evidence, prompt = read_evidence(config.data, config.split), str(config.prompt)
    loaded = load_model(config)
    scorer = scorer_of(loaded.model, loaded.processor, loaded.max_new_tokens)
    if not isinstance(scorer, GeneratingScorer):
        raise UserError(f"prompt={prompt}: the model generates no text; leave prompt out, or choose another model")
    print(loaded.name, flush=True)
    images = load_captions_of(config.data, config.split).captioned
    if config.samples > len(images):
        raise UserError(f"samples={config.samples}: the {config.split} split has {len(images)} images; give fewer")
    rows = np.random.default_rng(config.seed).permutation(len(images))[: config.samples].tolist()
    samples = [Sample(images[row].image_id, images[row].image, prompt) for row in rows]
    first = first_pair(samples, config.data.on_bad_image)
    judged = usable(scoring(of_one_trace(explainers), ["image"]), loaded, first.image, prompt)
    judge = Judge(loaded, scorer, judged, evidence, read_scenes(evidence), config)
    check_model_and_texts(loaded.fingerprint, "samples", ([sample.id, sample.text] for sample in samples))
    check_images((sample.image for sample in samples), config.paths.cache)
    with progress(len(together.mine(samples)), "explaining captions", "images") as advance:

        def judged_caption(sample: Sample) -> list[JudgedCaption]:
            found = [judge.caption(pair) for pair in read_pairs([sample], config.data.on_bad_image)]
            advance()
            return found

        parts = together.shared_out(samples, judged_caption)
    found = joined([caption for some in parts for caption in some])
    if together.rank() == 0:
        write_report(found, loaded.source, config, run)


def of_one_trace(explainers: Mapping[str, Explainer]) -> dict[str, Explainer]:
    """Return the explainers that explain every word of a text by one trace, and report the others on stderr.

    ``random`` is left out silently, because the tables add it.
    """
    for name in (several := [name for name, each in explainers.items() if "scalar" in each.needs]):
        print(f"explainer {printable(name)} is left out: it runs the model again for each word", file=sys.stderr)
    return {name: each for name, each in explainers.items() if name not in (RANDOM, *several)}


@dataclass(frozen=True, eq=False)
class JudgedCaption:
    """A caption, and its W words that name objects: their explanations and evidence over P patches."""

    image_id: int
    true: bool  #: whether the caption is true of its scene
    kinds: Sequence[str]  #: the kind of each word, [W]
    relevance: Mapping[str, Array]  #: [W, P] by explainer; empty without words
    evidence: Sequence[Mask]  #: bool [P] for each word


def joined(captions: Sequence[JudgedCaption]) -> JudgedWords:
    """Return the words of all captions.

    Raises:
        UserError: There is no word.
    """
    naming = [each for each in captions if each.kinds]
    true = sum(each.true for each in captions)
    if not naming:
        raise UserError(
            f"samples={len(captions)}: {true} captions are true of their images, and no word of them names an object; "
            "give more samples, or a prompt for which the model describes the image"
        )
    return JudgedWords(
        {name: np.concatenate([each.relevance[name] for each in naming]) for name in naming[0].relevance},
        np.stack([mask for each in naming for mask in each.evidence]),
        [kind for each in naming for kind in each.kinds],
        [each.image_id for each in naming for _ in each.kinds],
        {"pictures": len(captions), "true": true, "captions": len(naming)},
    )


@dataclass(frozen=True, eq=False)
class Judge:
    """A model with what is known of the scenes that it describes."""

    loaded: LoadedModel
    scorer: GeneratingScorer
    explainers: Mapping[str, Explainer]
    known: SplitEvidence
    scenes: Mapping[int, KnownScene]
    config: LocaliseModelConfig

    def caption(self, pair: Pair) -> JudgedCaption:
        """Let the model describe an image, and explain the words that name objects if the caption is true.

        Raises:
            UserError: The model sees no square grid of patches over the whole image.
        """
        (asked,) = self.scorer.ask([pair])
        words, scene = self.scorer.words(asked), self.scenes[pair.id]
        named = named_objects([text for text, _ in words], scene)
        true = check_caption(self.scorer.text(asked), scene).true
        if not named:
            return JudgedCaption(pair.id, true, [], {}, [])
        assert pair.image is not None
        side = self._side(pair.image, traced := self._trace(pair.image, asked))
        every = {name: traced.explain(each)["image"].double().cpu().numpy() for name, each in self.explainers.items()}
        every[DELETION] = self._effects(pair.image, asked, side)
        relevance = {
            name: np.stack([tokens[words[each.word][1]].mean(0) for each in named]) for name, tokens in every.items()
        }
        share = self.config.patch_share
        masks = [self.known.object_patches(pair.id, each.objects, side, share) for each in named]
        return JudgedCaption(pair.id, true, [each.kind for each in named], relevance, masks)

    def _trace(self, image: Image.Image, asked: AskedAnswer) -> Traced:
        """Trace every token of a caption, T items, in one forward pass."""
        model, prompt = self.loaded.model, asked.prompt
        inputs = processed(model, self.loaded.processor, [image], prompt.text, **prompt.options)
        needs = Needs.of(self.explainers.values())
        return trace_hugging_face(model, inputs, answer(asked.tokens, each=True), self.loaded.layers, needs=needs)

    def _side(self, image: Image.Image, traced: Traced) -> int:
        """Return the number of rows, and of columns, of the patches."""
        rows, cols = traced.grid or (0, 0)
        seen = seen_box(self.loaded.model, self.loaded.processor, image.size)
        if rows != cols or not rows or seen != (0, 0, *image.size):
            raise UserError(f"the model sees {rows} × {cols} cells in {seen} of an image; evidence needs a square grid")
        return rows

    def _effects(self, image: Image.Image, asked: AskedAnswer, side: int) -> Array:
        """Return the fall of each token's probability without each patch, [T, P]."""
        boxes = cells((side, side), (0, 0, *image.size))
        filler = Filler(np.asarray(image, dtype=np.float64) / 255, boxes, "mean", "")
        shown = [image, *(filler.image_without(kept) for kept in ~np.eye(len(boxes), dtype=np.bool_))]
        found = np.concatenate(
            [
                self.scorer.token_probabilities([shown[k] for k in part], asked)
                for part in in_order(len(shown), self.config.batch_size)
            ]
        )
        return (found[:1] - found[1:]).T
