"""Default values are only in the YAML files, so that they cannot disagree with the schemas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields

import pytest
from omegaconf import MISSING
from schemas import values

from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.config.data import DATA_SCHEMAS
from clipmapper.config.schema import (
    EncoderConfig,
    EvaluateConfig,
    MapperConfig,
    OpenClipConfig,
    OptimConfig,
    PathsConfig,
    TrainConfig,
    TrainedWithConfig,
)
from clipmapper.config.trainer import LoggerConfig, TrainerConfig
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.tasks.caption.config import CaptionTaskConfig, ExplainCaptionConfig
from clipmapper.tasks.vqa.config import ExplainConfig, VQATaskConfig

COMMANDS = (TrainConfig, EvaluateConfig, ExplainConfig, ExplainCaptionConfig, PretrainConfig, BenchmarkConfig)
SECTIONS = (MapperConfig, EncoderConfig, OpenClipConfig, TrainerConfig, LoggerConfig, PathsConfig, OptimConfig)
TASKS = (VQATaskConfig, CaptionTaskConfig)
ONLY_OF_QUESTIONS = ("min_answer_questions", "answers_file", "reserved")
NOT_IN_YAML = {("CocoConfig", key) for key in ONLY_OF_QUESTIONS}
NOT_IN_YAML |= {("TableConfig", key) for key in (*ONLY_OF_QUESTIONS, "root", "seed")}
# None in both: checkpoints that were written before these keys existed lack them.
OPTIONAL = {
    (schema.__name__, field.name) for schema in (EncoderConfig, OpenClipConfig) for field in fields(TrainedWithConfig)
}


EARLIER = {("EncoderConfig", "precision", "float32")}  # what checkpoints had that were written before the key existed


def defaults(schema: type) -> Iterator[str]:
    for field in fields(schema):
        value = field.default if field.default_factory is NO_DEFAULT else field.default_factory()
        if value is None and (schema.__name__, field.name) in OPTIONAL:
            continue
        if (schema.__name__, field.name, value) in EARLIER:
            continue
        if value != MISSING and (schema.__name__, field.name) not in NOT_IN_YAML:
            yield f"{schema.__name__}.{field.name}={value}"


@pytest.mark.parametrize("schema", [*COMMANDS, *SECTIONS, *TASKS, *DATA_SCHEMAS.values()])
def test_a_schema_has_no_default_values(schema: type) -> None:
    assert list(defaults(schema)) == []


@pytest.mark.parametrize(
    ("file", "section"), [("encoder/shapes_tiny", ()), ("encoder/vit_b_32", ()), ("model/open_clip", ("model",))]
)
def test_the_defaults_that_both_have_are_the_same(file: str, section: tuple[str, ...]) -> None:
    found = values(file)
    for part in section:
        found = found[part]
    assert all(found[field.name] is None for field in fields(TrainedWithConfig))
