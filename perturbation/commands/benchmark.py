"""The command ``benchmark``: speed and memory, measured as ratios within one process."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.cli import command, typed


@command("benchmark")
def main(config: DictConfig, run: Path) -> None:
    """Run the chosen benchmarks; print each number as soon as it is measured and write all to ``benchmark.json``."""
    checked: BenchmarkConfig = typed(config, BenchmarkConfig)
    from clipmapper.benchmarks.captioning import captioning
    from clipmapper.benchmarks.explaining import explaining
    from clipmapper.benchmarks.training import training_step
    from clipmapper.encoder.load import use_threads
    from clipmapper.files import versions, write_json
    from perturbation.benchmark.perturbing import perturbing

    use_threads(checked.threads)
    mapper = checked.mapper.name
    measures = {
        "training": lambda size: training_step(checked),
        "explaining": lambda size: explaining(size, mapper),
        "captioning": lambda size: captioning(size, mapper),
        "perturbing": lambda size: perturbing(checked, size),
    }
    figures: dict[str, float] = {}
    for what in checked.what:
        sizes = ["tiny"] if what == "training" else checked.sizes
        for size in sizes:
            found = measures[what](size)
            for name, value in found.items():
                print(f"  {name:<85} {value:6.3f}", flush=True)
            figures |= found
            write_json(run / "benchmark.json", {**figures, "versions": versions()})
