"""Pre-trains the embedded encoder on ``shapes`` scenes and reports what its tokens know.

``python scripts/pretrain_clip.py output=clipmapper/encoder/embedded`` makes the weights that ship with the project.
"""

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import PretrainConfig


@command("pretrain_clip")
def main(config: DictConfig, run: Path) -> None:
    """One pre-training run."""
    checked: PretrainConfig = typed(config, PretrainConfig)
    from clipmapper.encoder.pretraining.run import run_pretraining

    run_pretraining(checked, run)


if __name__ == "__main__":
    main()
