"""Measures where a training step's time goes: ``python scripts/benchmark.py mapper=b``."""

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command
from clipmapper.config import Config, typed


@command("benchmark")
def main(config: DictConfig, run: Path) -> None:
    """Ratios, printed and written to ``benchmark.json``."""
    checked: Config = typed(config, Config)
    from clipmapper.benchmark import training_step
    from clipmapper.data.json_files import write_json
    from clipmapper.results import versions

    figures = training_step(checked)
    write_json(run / "benchmark.json", {**figures, "versions": versions()})
    for name, value in figures.items():
        print(f"  {name:<50} {value:6.3f}")


if __name__ == "__main__":
    main()
