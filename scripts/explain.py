"""Makes pictures of explanations, and writes the scores behind them.

``python scripts/explain.py task=vqa mapper=b explainer=weighted`` takes the newest fitting checkpoint and questions of
the test split; ``python scripts/explain.py image=PHOTO question="what is it?"`` needs no data. With ``task=caption``
pictures are captioned, and every word is explained; one's own ``image=PHOTO`` has no question then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from clipmapper.tasks import EXPLAIN_SCHEMAS
from clipmapper.tasks.caption.config import ExplainCaptionConfig
from clipmapper.tasks.vqa.config import ExplainConfig

if TYPE_CHECKING:
    from explain import Explainer


@command("explain", as_typed=("image", "question"))
def main(config: DictConfig, run: Path) -> None:
    """Pictures and scores of the samples that the config chooses."""
    checked = typed(config, EXPLAIN_SCHEMAS.get(config.task.name, ExplainConfig))
    from clipmapper.explaining.explainers import choose_explainers
    from clipmapper.explaining.output import SCORES

    explainers = choose_explainers(config.explainer, choice("explainer"))
    of_task = explain_captions if isinstance(checked, ExplainCaptionConfig) else explain_answers
    count = of_task(checked, explainers, run / "pictures", run / SCORES)
    print(f"explained {count}: pictures in {run / 'pictures'}, scores in {run / SCORES}")


def explain_answers(config: ExplainConfig, explainers: Mapping[str, Explainer], folder: Path, scores: Path) -> str:
    """Questions of the data, or one's own."""
    from clipmapper.tasks.vqa.pictures import make_pictures
    from clipmapper.tasks.vqa.selection import choose, own_subject
    from clipmapper.tasks.vqa.trained import load_subject

    own = config.image is not None
    subject = own_subject(config) if own else load_subject(config, config.split, config.checkpoint)
    print(f"checkpoint: {subject.checkpoint}", flush=True)
    return f"{make_pictures(subject, choose(subject, config), explainers, config, folder, scores)} questions"


def explain_captions(
    config: ExplainCaptionConfig, explainers: Mapping[str, Explainer], folder: Path, scores: Path
) -> str:
    """Captions of the data's pictures, or of one's own."""
    from clipmapper.tasks.caption.pictures import choose_pictures, make_caption_pictures
    from clipmapper.tasks.caption.trained import load_caption_subject, own_picture

    if config.image is not None:
        subject = own_picture(config, config.image, config.checkpoint)
    else:
        subject = load_caption_subject(config, config.split, config.checkpoint)
    print(f"checkpoint: {subject.checkpoint}", flush=True)
    rows = choose_pictures(subject, config)
    return f"{make_caption_pictures(subject, rows, explainers, config, folder, scores)} captions"


if __name__ == "__main__":
    main()
