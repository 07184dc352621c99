"""The benchmark of the stages of an experiment at full size: processor time of an item, and what its model needs alone.

Every stage runs the code of the commands on few items, in turns with the bare model on ready tensors. The hours of the
full size of VQAv2 and COCO are extrapolated from them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from clipmapper.benchmarks.captioning import LENGTH, random_caption_model
from clipmapper.benchmarks.encoding import photos
from clipmapper.benchmarks.random_models import LENGTHS, mapper_config, random_batch, random_clip, random_model
from clipmapper.benchmarks.timing import highest_memory, side_by_side
from clipmapper.benchmarks.training import TINY, VQAV2, random_dataset
from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.data.caption_files import CaptionData, CaptionImage
from clipmapper.data.images import FileImage
from clipmapper.features.at_once import ON_CPU
from clipmapper.features.images import image_features
from clipmapper.features.store import FeatureStore, FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.tasks.caption.data import CaptionedImages
from clipmapper.tasks.caption.decoding import caption_images
from clipmapper.tasks.vqa.data import VQABatch
from clipmapper.tasks.vqa.evaluation import predict
from clipmapper.tasks.vqa.model import CLIPMapperVQA, build_vqa
from clipmapper.tasks.vqa.training import VQATraining, soft_label_loss
from clipmapper.training.batches import StepSampler
from clipmapper.training.read_ahead import ReadAhead
from clipmapper.training.trainer import base_trainer
from perturbation.benchmark.perturbing import PAPER, CurveRecorder, operations_needed, questions_of
from perturbation.perturb.parts import write_part


@dataclass(frozen=True)
class Load:
    """The amount of work to measure."""

    images: int = 64
    texts: int = 512
    steps: int = 3  #: of training
    answered: int = 512  #: questions of an evaluation
    explained: int = 8  #: questions of a perturbation test
    engine_batch: int = 8  #: subsets of tokens that are read together
    captions: int = 32
    rounds: int = 1
    product: int = 2048  #: rows and columns of the large matrix product, whose rate perturbation is compared with


LOAD = Load()


@dataclass(frozen=True)
class Stage:
    """A stage, and what its model needs alone."""

    name: str
    item: str
    run: Callable[[], object]  #: the code of the commands
    items: int  #: of a run
    bare: Callable[[], object]
    bare_items: float  #: those whose work ``bare`` does
    full: int  #: number of items at full size


def stages(config: Config, size: str, device: torch.device) -> dict[str, float]:
    """Return costs of each stage by name: of an item, beside the bare model, and of the full size.

    Args:
        config: The benchmark's config; the training step has its optimizer, batch size and precision.
        size: Size of the model, tiny or vit_b_32.
        device: Device of the models.
    """
    found: dict[str, float] = {}
    clock, kind = (time.process_time, "processor time") if device.type == "cpu" else (time.perf_counter, "time")
    with tempfile.TemporaryDirectory() as name:
        model = random_model(size, config.mapper.name, device)
        for stage in _all(config, size, model, Path(name), device):
            label = f"{size}, {stage.name}"
            memory = highest_memory(stage.run, device)
            ways = {"run": stage.run, "bare": stage.bare}
            seconds = side_by_side(ways, LOAD.rounds, clock)
            each = seconds["run"] / stage.items
            found[f"{label}: ms of {kind} {stage.item}"] = each * 1e3
            found[f"{label}: times the bare model"] = each / (seconds["bare"] / stage.bare_items)
            found[f"{label}: hours for {stage.full:,}, extrapolated"] = each * stage.full / 3600
            found[f"{label}: highest memory of the process in MiB"] = memory / 2**20
    return found


def _all(config: Config, size: str, model: CLIPMapperVQA, folder: Path, device: torch.device) -> Iterator[Stage]:
    encoder = replace(config.encoder, batch_size=None, feature_dtype="float16")
    yield _images(size, model, encoder, folder, device)
    yield _texts(model, encoder, folder, device)
    yield from _training_and_evaluation(config, size, model, folder, device)
    yield _perturbation(model, folder, device)
    yield _captions(config, size, folder, device)


def _images(size: str, model: CLIPMapperVQA, encoder: EncoderConfig, folder: Path, device: torch.device) -> Stage:
    paths = photos(folder / "photos", LOAD.images)
    images = {number: FileImage(path) for number, path in enumerate(paths)}
    clip, cache = random_clip(size, device), _new_folders(folder / "images")
    ready = random_batch(model, LOAD.images)[0].split(ON_CPU)

    @torch.inference_mode()
    def bare() -> None:
        for pixels in ready:
            clip.encode_image(pixels)

    def run() -> object:
        return image_features(model.encoder, encoder, images, next(cache), "fail", device)

    return Stage("encoding images", "an image", run, LOAD.images, bare, LOAD.images, 123_287)


def _texts(model: CLIPMapperVQA, encoder: EncoderConfig, folder: Path, device: torch.device) -> Stage:
    draw = np.random.default_rng(0)
    words = ["the", "a", "man", "red", "what", "color", "is", "on", "left", "of", "this", "sign", "two", "cat"]
    lengths = np.sort(np.resize(LENGTHS, LOAD.texts)) - 2  # without start and end token
    texts = [f"{' '.join(draw.choice(words, n - 1))} {k % 10}" for k, n in enumerate(lengths)]
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [model.encoder.tokenize(distinct[k : k + 4 * ON_CPU]) for k in range(0, len(distinct), 4 * ON_CPU)]
    ready, cache = [batch.to(device) for batch in batches], _new_folders(folder / "texts")

    @torch.inference_mode()
    def bare() -> None:
        for batch in ready:
            model.encoder.text(batch.ids, batch.valid)

    def run() -> object:
        return text_features(model.encoder, encoder, distinct, next(cache), device)

    return Stage("encoding texts", "a text", run, len(distinct), bare, len(distinct), 443_757)


def _training_and_evaluation(
    config: Config, size: str, model: CLIPMapperVQA, folder: Path, device: torch.device
) -> Iterator[Stage]:
    sizes, optim = TINY if size == "tiny" else VQAV2, config.task.optim
    dataset = random_dataset(folder / "features", sizes, LOAD.answered)
    trained = build_vqa(mapper_config(size, config.mapper.name), model.encoder, sizes.answers).to(device)
    sampler = StepSampler(len(dataset), optim.batch_size, LOAD.steps, config.seed)
    loader: DataLoader[VQABatch] = DataLoader(dataset, sampler=sampler, batch_size=None)
    batch = next(iter(loader)).to(device)
    runs = _new_folders(folder / "runs")

    def train() -> None:
        module = VQATraining(trained, optim, LOAD.steps, {}, config.seed)
        settings: dict[str, Any] = {"max_epochs": 1, "max_steps": LOAD.steps, "enable_checkpointing": False}
        base_trainer(config, next(runs), [], **settings).fit(module, ReadAhead(loader, device.type == "cuda"))

    def forward_and_backward() -> None:
        trained.to(device).train().zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            loss = soft_label_loss(trained(batch.image, batch.text), batch.targets)
        loss.backward()

    asked = len(batch.rows)
    yield Stage("training", "a question", train, asked * LOAD.steps, forward_and_backward, asked, 443_757)

    @torch.inference_mode()
    def forward() -> None:
        trained.to(device).eval()(batch.image, batch.text)

    def evaluate() -> object:
        return predict(trained.to(device), dataset)

    yield Stage("evaluation", "a question", evaluate, len(dataset), forward, asked, 214_354)


def _perturbation(model: CLIPMapperVQA, folder: Path, device: torch.device) -> Stage:
    """Four explainers, image and text, both directions; the bare model is its operations at the rate of a product."""
    recorder, questions = CurveRecorder(model, PAPER, LOAD.engine_batch), questions_of(model, LOAD.explained)
    factor = torch.randn(LOAD.product, LOAD.product, device=device)
    needed = operations_needed(model, questions, PAPER) / LOAD.explained
    runs = _new_folders(folder / "parts")

    def run() -> None:
        write_part(next(runs), 0, recorder.record(questions))

    def bare() -> None:
        for _ in range(4):
            factor @ factor

    return Stage("perturbation", "a question", run, LOAD.explained, bare, 4 * 2 * LOAD.product**3 / needed, 10_000)


def _captions(config: Config, size: str, folder: Path, device: torch.device) -> Stage:
    """Greedy decoding; the bare model is one forward pass over all tokens of captions that are known."""
    model = random_caption_model(size, config.mapper.name).to(device)
    vision, numbers = model.encoder.vision, list(range(LOAD.captions))
    draw = torch.Generator().manual_seed(0)
    features = [torch.randn(vision.token_count, vision.width, generator=draw).half() for _ in numbers]
    store = FeatureStore.written(folder / "captions", features)
    shown = tuple(CaptionImage(k, (), FileImage(folder / str(k))) for k in numbers)
    images = CaptionedImages(CaptionData(shown, "random"), FrozenFeatures(store, {k: k for k in numbers}, {}))
    image = images.shown(numbers).to(device, torch.float32)
    ids = torch.full((LOAD.captions, LENGTH), model.vocabulary.start, device=device)

    @torch.inference_mode()
    def bare() -> None:
        model.trained(image, model.encoder.text(ids, torch.ones_like(ids, dtype=torch.bool)))

    def run() -> object:
        return caption_images(model, images, numbers, LENGTH)

    return Stage(f"captions of {LENGTH} tokens", "an image", run, LOAD.captions, bare, LOAD.captions, 5_000)


def _new_folders(parent: Path) -> Iterator[Path]:
    """Yield new folders, so that no run finds what another has written."""
    for number in count():
        folder = parent / str(number)
        folder.mkdir(parents=True)
        yield folder
