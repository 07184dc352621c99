"""Registry of the tasks that a mapper can be trained for, by name.

A new task needs:

- a folder here with a :class:`~clipmapper.tasks.base.Task`, and an entry in ``TASKS`` below;
- the config files ``task/NAME.yaml``, ``explain/NAME.yaml`` and ``perturb/NAME.yaml``;
- an entry in ``perturbation.tasks``, with what the evaluation of explanations needs from it.
"""

from __future__ import annotations

from clipmapper.tasks.base import Task
from clipmapper.tasks.caption.task import CaptionTask
from clipmapper.tasks.vqa.task import VQATask

TASKS: dict[str, Task] = {"vqa": VQATask(), "caption": CaptionTask()}

__all__ = ["TASKS", "Task"]
