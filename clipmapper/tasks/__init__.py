"""The tasks that a mapper can be trained for, by name.

Adding one: a folder here with a :class:`~clipmapper.tasks.base.Task`, its line below, its configs ``task/NAME.yaml``,
``explain/NAME.yaml`` and ``perturb/NAME.yaml``, and what the tests of explanations ask of it (``perturbation.tasks``).
"""

from __future__ import annotations

from clipmapper.tasks.base import Task
from clipmapper.tasks.caption.task import CaptionTask
from clipmapper.tasks.vqa.task import VQATask

TASKS: dict[str, Task] = {"vqa": VQATask(), "caption": CaptionTask()}

__all__ = ["TASKS", "Task"]
