"""The data set a config names, read and split: training, validation, and test where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipmapper.data.answers import AnswerVocabulary, build_vocabulary, read_lxmert_labels
from clipmapper.data.config import DataConfig, EasyVQAConfig, ShapesConfig, VQAv2Config, VQAv2HubConfig
from clipmapper.data.records import ImageSource, VQAData
from clipmapper.data.splits import merge, reserve
from clipmapper.errors import UserError


@dataclass(frozen=True)
class Splits:
    """``val`` chooses checkpoints; ``test`` chooses nothing, and is None where the data has no labelled test split."""

    train: VQAData
    val: VQAData
    test: VQAData | None

    @property
    def parts(self) -> dict[str, VQAData]:
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def images(self) -> dict[int, ImageSource]:
        """Every picture of every part, by image id."""
        return {i: image for part in self.parts.values() for i, image in part.images.items()}

    def part(self, name: str) -> VQAData:
        """Raises ``UserError`` where the data has no such part."""
        if name not in self.parts:
            raise UserError(f"split={name}: this data has {', '.join(self.parts)}")
        return self.parts[name]


def load_data(config: DataConfig) -> Splits:
    """Reads (and, for generated sets, first writes) the data; raises ``UserError`` as the readers do."""
    splits = _read(config)
    for name, part in splits.parts.items():
        if not part.questions:
            raise UserError(f"data {config.name}: the {name} split has no questions; check data.root and data.reserved")
    return splits


def vocabulary(config: DataConfig, splits: Splits) -> AnswerVocabulary:
    """LXMERT's label file where the config names one, else built from training and validation."""
    if config.answers_file is not None:
        return read_lxmert_labels(Path(config.answers_file))
    built = build_vocabulary((*splits.train.questions, *splits.val.questions), config.min_answer_questions)
    if not len(built):
        raise UserError(
            f"no answer occurs in data.min_answer_questions={config.min_answer_questions} questions; lower it, "
            "or give data.answers_file"
        )
    return built


def _read(config: DataConfig) -> Splits:
    if isinstance(config, ShapesConfig):
        from clipmapper.data.shapes.write import LAYOUT, SPLITS, write_shapes
        from clipmapper.data.vqa_files import read_vqav2

        folder = write_shapes(config)
        return Splits(*(read_vqav2(folder, [split], LAYOUT) for split in SPLITS))
    if isinstance(config, EasyVQAConfig):
        from clipmapper.data.easy_vqa import EASY_VQA, write_easy_vqa
        from clipmapper.data.vqa_files import read_vqav2

        root = Path(config.root)
        write_easy_vqa(root)
        train, val = reserve(read_vqav2(root, ["train"], EASY_VQA), config.reserved, config.seed)
        return Splits(train, val, read_vqav2(root, ["test"], EASY_VQA))
    if isinstance(config, VQAv2Config):
        from clipmapper.data.vqa_files import read_vqav2

        return _reserved(config, lambda splits: read_vqav2(Path(config.root), splits))
    if isinstance(config, VQAv2HubConfig):
        from clipmapper.data.hub import read_hub, read_parquet

        root = Path(config.root)
        local = root.exists()
        return _reserved(
            config,
            lambda splits: merge(*(read_parquet(root, s) if local else read_hub(config.root, s) for s in splits)),
        )
    raise UserError(f"data={config.name} has captions, but no questions; give task=caption, or other data")


def _reserved(config: VQAv2Config | VQAv2HubConfig, read: Callable[[list[str]], VQAData]) -> Splits:
    """Training splits less ``reserved`` examples of ``reserve_from``, which choose and test (the paper's split)."""
    if config.reserve_from not in config.train_splits:
        raise UserError(
            f"data.reserve_from={config.reserve_from} is not one of data.train_splits={config.train_splits}"
        )
    rest, val = reserve(read([config.reserve_from]), config.reserved, config.seed)
    others = [split for split in config.train_splits if split != config.reserve_from]
    train = merge(read(others), rest) if others else rest
    return Splits(train, val, None if config.test_split is None else read([config.test_split]))
