"""``config.yaml`` of a run folder: the resolved config, with the command line and a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clipmapper.arguments import without_interpolation
from clipmapper.config.run_folder import CONFIG
from clipmapper.files import write_atomic
from clipmapper.storage.checksums import sealed_text
from clipmapper.text import check_texts, printable


def write_config(folder: Path, config: DictConfig, line: str) -> None:
    """Write the resolved config to ``config.yaml``; comments are the command line, first, and a checksum, last.

    Raises:
        UserError: UTF-8 cannot hold a value.
    """
    comment = printable(" ".join(line.splitlines()))  # a line break in an argument would end the comment
    resolved = OmegaConf.to_container(config, resolve=True)
    check_texts(resolved, "config key ", "correct it")
    text = OmegaConf.to_yaml(OmegaConf.create(_without_interpolations(resolved)))
    write_atomic(folder / CONFIG, sealed_text(f"# python {comment}\n{text}").encode())  # jobs of one folder write it


def _without_interpolations(value: Any) -> Any:
    """Return a resolved value with ``${`` escaped in all texts, so that OmegaConf reads the same texts again."""
    if isinstance(value, dict):
        return {key: _without_interpolations(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_interpolations(each) for each in value]
    return without_interpolation(value) if isinstance(value, str) else value
