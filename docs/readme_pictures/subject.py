"""The subject of the pictures: the shipped VQA model, test scenes of ``shapes``, and one question, chosen by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from clipmapper.cli import typed
from clipmapper.config.groups import chosen_configs
from clipmapper.data.records import Question
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.data.shapes.write import EVIDENCE
from clipmapper.encoder.load import use_threads
from clipmapper.explaining.explainers import build_explainers
from clipmapper.files import read_json
from clipmapper.places import CONFIGS
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA, load_trained
from explain import Explainer
from perturbation.config import PerturbConfig

EXPLAINERS = "paper"
#: Overrides of the command ``perturb``. A scene depends only on its number, so these are the first scenes of the test.
OVERRIDES = (
    *("task=vqa", "mapper=b", f"explainer={EXPLAINERS}", "checkpoint=shipped", "split=test", "samples=null"),
    *("measure.names=[areas]", "controls=[random]", "random_seeds=3", "data.test_scenes=40", "engine_batch=32"),
    *("data.workers=1", "trainer.accelerator=cpu", "threads=1"),
)
RULE = (
    "the first question of the test split of kind relation_color that the model answers correctly, in a scene with "
    "three or more objects of which only one has the color that is the answer"
)


def config_of(*more: str) -> PerturbConfig:
    """Return the config of the pictures, with further overrides."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config: PerturbConfig = typed(compose("perturb", [*OVERRIDES, *more]), PerturbConfig)
    use_threads(config.threads)
    return config


@dataclass(frozen=True, eq=False)
class Subject:
    """The chosen question, its model and the explainers."""

    config: PerturbConfig
    trained: TrainedVQA
    evidence: SplitEvidence
    batch: QuestionBatch  #: only the chosen question

    @property
    def question(self) -> Question:
        """The chosen question."""
        return self.batch.questions[0]

    def explainers(self) -> dict[str, Explainer]:
        """Build the explainers of the paper and the random control, by name."""
        options = OmegaConf.create(asdict(self.config)).explainer
        return build_explainers(chosen_configs("explainer", EXPLAINERS, options, self.config.controls))


def load_subject(config: PerturbConfig) -> Subject:
    """Load the model and the test questions, and choose the question by ``RULE``."""
    trained = load_trained(config, config.split, config.checkpoint)
    evidence = read_evidence(config.data, config.split)
    batch = trained.batch([_chosen_row(trained, evidence)])
    assert batch is not None  # bad images are errors
    return Subject(config, trained, evidence, batch)


def _chosen_row(trained: TrainedVQA, evidence: SplitEvidence) -> int:
    scenes: Mapping[str, Any] = read_json(evidence.folder / EVIDENCE.format(split=evidence.split))["scenes"]
    for row, question in enumerate(trained.questions):
        colors = [each["color"]["name"] for each in scenes[str(question.image_id)]["objects"]]
        answer = question.multiple_choice_answer
        fits = question.question_type == "relation_color" and len(colors) > 2 and colors.count(answer) == 1
        if fits and next(iter(trained.answered([row], 1)))[2] == answer:
            return row
    raise LookupError(f"no question fits the rule: {RULE}")
