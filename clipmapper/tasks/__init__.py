"""The tasks: a folder each. Their schemas by name, without torch."""

from clipmapper.config.explain import PictureConfig
from clipmapper.config.tasks import TaskConfig
from clipmapper.tasks.caption.config import CaptionTaskConfig, ExplainCaptionConfig
from clipmapper.tasks.vqa.config import ExplainConfig, VQATaskConfig

TASK_SCHEMAS: dict[str, type[TaskConfig]] = {"vqa": VQATaskConfig, "caption": CaptionTaskConfig}
EXPLAIN_SCHEMAS: dict[str, type[PictureConfig]] = {"vqa": ExplainConfig, "caption": ExplainCaptionConfig}
