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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from clipmapper import console
from clipmapper.benchmarks.captioning import LENGTH, random_caption_model
from clipmapper.benchmarks.encoding import photos
from clipmapper.benchmarks.random_models import LENGTHS, mapper_config, random_batch, random_clip, random_model
from clipmapper.benchmarks.timing import highest_memory, side_by_side
from clipmapper.benchmarks.training import TINY, VQAV2, random_dataset
from clipmapper.cli.foreign_messages import without_foreign_messages
from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.data.caption_files import CaptionData, CaptionImage
from clipmapper.data.images import FileImage
from clipmapper.features.at_once import ON_CPU
from clipmapper.features.images import image_features
from clipmapper.features.store import FeatureStore, FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.process.workers import pool
from clipmapper.tasks.caption.data import CaptionedImages
from clipmapper.tasks.caption.decoding import caption_images
from clipmapper.tasks.vqa.data import VQABatch, VQADataset
from clipmapper.tasks.vqa.evaluation import predict
from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper, build_vqa
from clipmapper.tasks.vqa.training import VQATraining, soft_label_loss
from clipmapper.training.batches import StepSampler
from clipmapper.training.module import build_optimizer
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
class Setup:
    """What the stages are measured with."""

    config: Config  #: the training step has its optimizer, batch size, precision and number of steps
    size: str  #: of the model: tiny or vit_b_32
    device: torch.device
    load: Load
    folder: Path  #: for files, empty at first


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

    Each stage is measured in a new process, so that the highest memory is its own.

    Args:
        config: The benchmark's config; the training step has its optimizer, batch size, precision and number of steps.
        size: Size of the model, tiny or vit_b_32.
        device: Device of the models.

    Raises:
        UserError: The process of a stage was killed.
    """
    found: dict[str, float] = {}
    for name in STAGES:
        with tempfile.TemporaryDirectory() as folder, pool(1, get_context("spawn")) as worker:
            setup = Setup(config, size, device, LOAD, Path(folder))
            found |= worker.submit(_in_new_process, name, setup, torch.get_num_threads()).result()
    return found


def _in_new_process(name: str, setup: Setup, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    console.shown = False
    with without_foreign_messages():
        stage = STAGES[name](setup)
        costs = costs_of(stage, setup.load.rounds, setup.device)
    return {f"{setup.size}, {stage.name}: {cost}": value for cost, value in costs.items()}


def costs_of(stage: Stage, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the costs of a stage by name.

    Args:
        stage: The stage, which runs once before it is timed.
        rounds: Number of times that it is timed, in turns with its bare model; the median counts.
        device: The device of its model: processor time counts on a CPU, and elapsed time on others.
    """
    clock, kind = (time.process_time, "processor time") if device.type == "cpu" else (time.perf_counter, "time")
    memory = highest_memory(stage.run, device)
    seconds = side_by_side({"run": stage.run, "bare": stage.bare}, rounds, clock)
    each = seconds["run"] / stage.items
    return {
        f"ms of {kind} {stage.item}": each * 1e3,
        "times the bare model": each / (seconds["bare"] / stage.bare_items),
        f"hours for {stage.full:,}, extrapolated": each * stage.full / 3600,
        "highest memory of the process in MiB": memory / 2**20,
    }


def _images(setup: Setup) -> Stage:
    model, encoder, count = _model(setup), _encoder(setup), setup.load.images
    images = {number: FileImage(path) for number, path in enumerate(photos(setup.folder / "photos", count))}
    clip, cache = random_clip(setup.size, setup.device), _new_folders(setup.folder / "images")
    ready = random_batch(model, count)[0].split(ON_CPU)

    @torch.inference_mode()
    def bare() -> None:
        for pixels in ready:
            clip.encode_image(pixels)

    def run() -> object:
        return image_features(model.encoder, encoder, images, next(cache), "fail", setup.device)

    return Stage("encoding images", "an image", run, count, bare, count, 123_287)


def _texts(setup: Setup) -> Stage:
    model, encoder = _model(setup), _encoder(setup)
    draw = np.random.default_rng(0)
    words = ["the", "a", "man", "red", "what", "color", "is", "on", "left", "of", "this", "sign", "two", "cat"]
    lengths = np.sort(np.resize(LENGTHS, setup.load.texts)) - 2  # without start and end token
    texts = [f"{' '.join(draw.choice(words, n - 1))} {k % 10}" for k, n in enumerate(lengths)]
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    batches = [model.encoder.tokenize(distinct[k : k + 4 * ON_CPU]) for k in range(0, len(distinct), 4 * ON_CPU)]
    ready, cache = [batch.to(setup.device) for batch in batches], _new_folders(setup.folder / "texts")

    @torch.inference_mode()
    def bare() -> None:
        for batch in ready:
            model.encoder.text(batch.ids, batch.valid)

    def run() -> object:
        return text_features(model.encoder, encoder, distinct, next(cache), setup.device)

    return Stage("encoding texts", "a text", run, len(distinct), bare, len(distinct), 658_111)


def _training(setup: Setup) -> Stage:
    """Steps of the command; the bare model is a step on a ready batch: forward, backward and the optimizer."""
    config, device, steps = setup.config, setup.device, setup.load.steps
    model, dataset = _mapper(setup)
    sampler = StepSampler(len(dataset), config.task.optim.batch_size, steps, config.seed)
    loader: DataLoader[VQABatch] = DataLoader(dataset, sampler=sampler, batch_size=None)
    batch = next(iter(loader)).to(device)
    runs, optimizer = _new_folders(setup.folder / "runs"), build_optimizer(model, config.task.optim)

    def train() -> None:
        module = VQATraining(model, config.task.optim, steps, {}, config.seed)
        settings: dict[str, Any] = {"max_epochs": 1, "max_steps": steps, "enable_checkpointing": False}
        base_trainer(config, next(runs), [], **settings).fit(module, ReadAhead(loader, device.type == "cuda"))

    def bare() -> None:
        model.to(device).train()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
                loss = soft_label_loss(model(batch.image, batch.text), batch.targets)
            loss.backward()
            optimizer.step()

    asked = len(batch.rows)
    return Stage("training", "a question", train, asked * steps, bare, asked * steps, config.trainer.max_steps * asked)


def _evaluation(setup: Setup) -> Stage:
    model, dataset = _mapper(setup)
    model.eval()
    ready = dataset[list(range(min(len(dataset), setup.config.task.optim.batch_size)))].to(setup.device)

    @torch.inference_mode()
    def bare() -> None:
        model(ready.image, ready.text)

    def run() -> object:
        return predict(model, dataset)

    return Stage("evaluation", "a question", run, len(dataset), bare, len(ready.rows), 214_354)


def _perturbation(setup: Setup) -> Stage:
    """Four explainers, image and text, both directions; the bare model is its operations at the rate of a product."""
    model, load = _model(setup), setup.load
    recorder, questions = CurveRecorder(model, PAPER, load.engine_batch), questions_of(model, load.explained)
    factor = torch.randn(load.product, load.product, device=setup.device)
    needed = operations_needed(model, questions, PAPER) / load.explained
    runs = _new_folders(setup.folder / "parts")

    def run() -> None:
        write_part(next(runs), 0, recorder.record(questions))

    def bare() -> None:
        for _ in range(4):
            factor @ factor

    return Stage("perturbation", "a question", run, load.explained, bare, 4 * 2 * load.product**3 / needed, 10_000)


def _captions(setup: Setup) -> Stage:
    """Greedy decoding; the bare model is one forward pass over all tokens of captions that are known."""
    model = random_caption_model(setup.size, setup.config.mapper.name).to(setup.device)
    vision, numbers = model.encoder.vision, list(range(setup.load.captions))
    draw = torch.Generator().manual_seed(0)
    features = [torch.randn(vision.token_count, vision.width, generator=draw).half() for _ in numbers]
    store = FeatureStore.written(setup.folder / "captions", features)
    shown = tuple(CaptionImage(k, (), FileImage(setup.folder / str(k))) for k in numbers)
    images = CaptionedImages(CaptionData(shown, "random"), FrozenFeatures(store, {k: k for k in numbers}, {}))
    image = images.shown(numbers).to(setup.device, torch.float32)
    ids = torch.full((len(numbers), LENGTH), model.vocabulary.start, device=setup.device)

    @torch.inference_mode()
    def bare() -> None:
        model.trained(image, model.encoder.text(ids, torch.ones_like(ids, dtype=torch.bool)))

    def run() -> object:
        return caption_images(model, images, numbers, LENGTH)

    return Stage(f"captions of {LENGTH} tokens", "an image", run, len(numbers), bare, len(numbers), 5_000)


def _model(setup: Setup) -> CLIPMapperVQA:
    return random_model(setup.size, setup.config.mapper.name, setup.device)


def _mapper(setup: Setup) -> tuple[VQAMapper, VQADataset]:
    """Return a mapper with random weights, and random features of questions with random answers."""
    sizes = TINY if setup.size == "tiny" else VQAV2
    dataset = random_dataset(setup.folder / "features", sizes, setup.load.answered)
    mapper = build_vqa(mapper_config(setup.size, setup.config.mapper.name), _model(setup).encoder, sizes.answers)
    return mapper.to(setup.device), dataset


def _encoder(setup: Setup) -> EncoderConfig:
    return replace(setup.config.encoder, batch_size=None, feature_dtype="float16")


def _new_folders(parent: Path) -> Iterator[Path]:
    """Yield new folders, so that no run finds what another has written."""
    for number in count():
        folder = parent / str(number)
        folder.mkdir(parents=True)
        yield folder


STAGES: dict[str, Callable[[Setup], Stage]] = {
    "images": _images,
    "texts": _texts,
    "training": _training,
    "evaluation": _evaluation,
    "perturbation": _perturbation,
    "captions": _captions,
}
