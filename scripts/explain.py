"""Makes pictures of explanations, and writes the scores behind them.

``python scripts/explain.py task=vqa mapper=b explainer=weighted`` takes the newest fitting checkpoint and questions of
the test split; ``python scripts/explain.py image=PHOTO question="what is it?"`` needs no data.
"""

import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clipmapper.cli import command
from clipmapper.config import typed
from clipmapper.explain_config import ExplainConfig


@command("explain")
def explain_samples(config: DictConfig, run: Path) -> None:
    """Pictures and scores of the samples that the config chooses."""
    checked: ExplainConfig = typed(config, ExplainConfig)
    from clipmapper.choosing import choose, own_subject
    from clipmapper.explaining import choose_explainers
    from clipmapper.picturing import SCORES, make_pictures
    from clipmapper.subject import load_subject

    explainers = choose_explainers(config.explainer, HydraConfig.get().runtime.choices["explainer"])
    own = checked.image is not None
    subject = own_subject(checked) if own else load_subject(checked, checked.split, checked.checkpoint)
    print(f"checkpoint: {subject.checkpoint}", flush=True)
    folder = run / "pictures"
    count = make_pictures(subject, choose(subject, checked), explainers, checked, folder, run / SCORES)
    print(f"explained {count} questions: pictures in {folder}, scores in {run / SCORES}")


def main() -> None:
    """The command; a path and a question are taken as they are typed, with blanks, commas and apostrophes."""
    sys.argv[1:] = [as_typed(argument) for argument in sys.argv[1:]]
    explain_samples()


def as_typed(argument: str) -> str:
    """``image`` and ``question`` in Hydra's quotes, unless they have some; other arguments as they are."""
    key, _, value = argument.partition("=")
    if key not in ("image", "question") or value == "null" or value[:1] in ("'", '"'):
        return argument
    quoted = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"{key}='{quoted}'"


if __name__ == "__main__":
    main()
