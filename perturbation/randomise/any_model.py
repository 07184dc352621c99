"""Any model in the model randomisation test.

The answers of the original model are explained throughout, also after layers are randomised. The layers are those that
the model registered, from the last to the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from torch import nn

from clipmapper.any_model.explainers import usable as usable_for_model
from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.any_model.samples import Sample, load_samples
from clipmapper.config.explain import AnyModelConfig
from clipmapper.errors import UserError
from explain import Explainer
from explain.sample.entry import explain
from explain.sample.traced import Goal
from perturbation.measures.base import ScoredBy, TokenScores
from perturbation.pairs.explaining import Chosen, explained_pairs
from perturbation.pairs.samples import Pair, read_pairs
from perturbation.randomise.layers import registered_layers

MODALITIES = ("image", "text")
UNIT = "samples"
layers = registered_layers


@dataclass(frozen=True, eq=False)
class ModelSamples:
    """A model with the samples to explain."""

    loaded: LoadedModel
    samples: Sequence[Sample]
    on_bad_image: str

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.loaded.model

    @property
    def checkpoint(self) -> str:
        """Where the model was loaded from."""
        return self.loaded.source

    @property
    def ids(self) -> list[int]:
        """Id of each sample."""
        return [sample.id for sample in self.samples]


@dataclass(frozen=True, eq=False)
class FixedPairs:
    """A batch of samples, and the answer to explain of each."""

    loaded: LoadedModel  #: the original model
    pairs: Sequence[Pair]
    goals: Sequence[Goal]

    @property
    def ids(self) -> list[int]:
        """Ids of the samples."""
        return [pair.id for pair in self.pairs]


def name_of(trained: ModelSamples) -> str:
    """Return the model, with its size."""
    return trained.loaded.name


def load(config: AnyModelConfig) -> ModelSamples:
    """Load the model and the samples of the config's data."""
    loaded = load_model(config)
    return ModelSamples(loaded, load_samples(config.data, config.split, loaded.dual), config.data.on_bad_image)


def usable(
    trained: ModelSamples, chosen: Sequence[FixedPairs], explainers: Mapping[str, Explainer]
) -> Mapping[str, Explainer]:
    """Return the explainers that can explain the model, and report the others on stderr."""
    first = chosen[0].pairs[0]
    return usable_for_model(explainers, trained.loaded, first.image, first.text)


def fixed(trained: ModelSamples, rows: Sequence[int]) -> FixedPairs | None:
    """Return the samples of these rows with the model's answers; None if no sample has an answer with a word.

    Raises:
        UserError: A sample cannot be read or explained.
    """
    loaded = trained.loaded
    pairs, goals = [], []
    for pair in read_pairs((trained.samples[row] for row in rows), trained.on_bad_image):
        try:
            options: dict[str, Any] = {"explainer": "rollout", "max_new_tokens": loaded.max_new_tokens}
            answer = explain(loaded.model, loaded.processor, pair.image, pair.text, **options).answer
        except ValueError as error:
            raise UserError(f"sample {pair.id}: {error}") from error
        if answer.similarity is not None or answer.text:
            pairs.append(pair)
            goals.append(None if answer.similarity is not None else answer.text)
    return FixedPairs(loaded, pairs, goals) if pairs else None


def explained(
    model: nn.Module, samples: FixedPairs, explainers: Mapping[str, Explainer], names: Sequence[int | str]
) -> dict[str, TokenScores]:
    """Explain the answers and return the scores of cells and words by modality.

    Args:
        model: The model.
        samples: The samples and the answers to explain.
        explainers: Explainers by name.
        names: Names of the samples; the part after a sample's id seeds random scores.
    """
    seed = crc32(str(names[0]).partition(" ")[2].encode())
    loaded = samples.loaded
    chosen = Chosen(explainers, {}, [], 1, loaded.layers, loaded.max_new_tokens)
    batch, _ = explained_pairs(model, loaded.processor, samples.pairs, chosen, 0, seed, samples.goals)
    return {
        modality: TokenScores(tokens.removable, {ScoredBy(by.name): each for by, each in tokens.scores.items()})
        for modality, tokens in batch.tokens.items()
    }
