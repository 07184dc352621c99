"""Command that writes the frozen encoder as a CLIP model of ``transformers``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING, DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.fields import path
from clipmapper.config.schema import EncoderConfig, PathsConfig


@dataclass
class ExportConfig:
    """Config of the export."""

    encoder: EncoderConfig = MISSING
    output: str = path()
    paths: PathsConfig = MISSING


@command("export")
def main(config: DictConfig, run: Path) -> None:
    """Write the folder that the config names."""
    checked: ExportConfig = typed(config, ExportConfig)
    from clipmapper.encoder.hugging_face import write_hugging_face
    from clipmapper.encoder.load import load_encoder

    encoder, folder = load_encoder(checked.encoder), Path(checked.output)
    difference = write_hugging_face(encoder, folder)
    print(f"wrote {checked.encoder.model} to {folder}; embeddings differ by at most {difference:.1e}")
