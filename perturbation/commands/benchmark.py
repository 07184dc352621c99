"""The command ``benchmark``: speed and memory, measured as ratios within one process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from clipmapper.benchmarks.config import TINY_ONLY, BenchmarkConfig
from clipmapper.cli import command, typed
from clipmapper.console import print_table, progress

# Names of numbers of which more is better: rates, the share of useful work, and costs of the other way of a ratio.
MORE_IS_BETTER = re.compile(
    "a second|rate of|matrix products|without caches|a pass for each word|fused attention|float32, times the step|"
    "busy share|rank correlation|change of accuracy"
)


@command("benchmark")
def main(config: DictConfig, run: Path) -> None:
    """Run the chosen benchmarks; print their numbers as soon as they are measured, and write ``benchmark.json``."""
    checked: BenchmarkConfig = typed(config, BenchmarkConfig)
    from clipmapper.benchmarks.captioning import captioning
    from clipmapper.benchmarks.encoding import encoding
    from clipmapper.benchmarks.explaining import explaining
    from clipmapper.benchmarks.feeding import feeding
    from clipmapper.benchmarks.training import training_step
    from clipmapper.encoder.load import use
    from clipmapper.files import versions, write_json
    from perturbation.benchmark.perturbing import perturbing
    from perturbation.benchmark.precision import precision
    from perturbation.benchmark.reading import reading
    from perturbation.benchmark.stages import stages

    device, mapper = use(checked), checked.mapper.name
    measures = {
        "training": lambda size: training_step(checked, device),
        "explaining": lambda size: explaining(size, mapper, device),
        "captioning": lambda size: captioning(size, mapper, device),
        "perturbing": lambda size: perturbing(checked, size, device=device),
        "feeding": lambda size: feeding(checked, device),
        "encoding": lambda size: encoding(),
        "precision": lambda size: precision(checked, device),
        "reading": lambda size: reading(device=device),
        "stages": lambda size: stages(checked, size, device),
    }
    jobs = [(what, size) for what in checked.what for size in (["tiny"] if what in TINY_ONLY else checked.sizes)]
    figures: dict[str, float] = {}
    with progress(len(jobs), "measuring", "benchmarks") as advance:
        for what, size in jobs:
            found = measures[what](size)
            print_figures(f"{what}, size {size}", found)
            figures |= found
            write_json(run / "benchmark.json", {**figures, "versions": versions()})
            advance()


def print_figures(title: str, figures: Mapping[str, float]) -> None:
    """Print numbers by name as a table, with an arrow for the better direction."""
    rows = [[name, "↑" if MORE_IS_BETTER.search(name) else "↓", f"{value:.3f}"] for name, value in figures.items()]
    print_table(f"{title}: ratios and other costs", ["measured", "better", "value"], rows, text=(0, 1))
