"""The small LLaVA of the package: transformers alone loads it, and it answers questions about new scenes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import llava_parts as parts
import pytest
from tiny_runs import PROJECT, composed

from clipmapper.any_model.load import load_model
from clipmapper.cli import typed
from clipmapper.data.shapes.render import draw_scene
from clipmapper.llava.conversations import DESCRIBE, draw_picture
from clipmapper.llava.evaluate import evaluate, generate
from clipmapper.pretrained import FOLDER, LLAVA
from explain.sample.entry import explain
from perturbation.config import PerturbModelConfig
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.choose import scorer_of

pytest.importorskip("transformers")
#: Answers a question from what transformers loads, in a process that cannot import this project.
ALONE = """
import json, sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("clipmapper", "explain", "perturbation"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

folder, image, question = sys.argv[1:]
model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
content = [{"type": "image"}, {"type": "text", "text": question}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(images=Image.open(image), text=prompt, return_tensors="pt")
made = model.generate(**inputs, max_new_tokens=10)[0, inputs["input_ids"].shape[1] :]
print(json.dumps([str(model.dtype), processor.decode(made, skip_special_tokens=True)]))
"""


@pytest.mark.slow
def test_transformers_alone_loads_it_and_it_answers(tmp_path: Path) -> None:
    item = draw_picture(parts.shapes(), "test", 0)
    question = item.questions[0]
    draw_scene(item.scene, 128).save(tmp_path / "scene.png")
    arguments = [sys.executable, "-c", ALONE, str(LLAVA), str(tmp_path / "scene.png"), question.text]
    ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == ["torch.float32", question.answer]


def test_it_answers_questions_about_new_scenes_and_describes_them() -> None:
    """The scenes are of a seed that nothing else uses; guessing reaches about half of the answers."""
    found = typed(composed("perturb", "model=huggingface", "model.path=embedded"), PerturbModelConfig)
    loaded = load_model(found)
    assert "LlavaForConditionalGeneration" in loaded.name
    scenes = [draw_picture(parts.shapes(seed=77), "test", k) for k in range(25)]
    judged = evaluate(loaded.model, loaded.processor, scenes, 128)
    assert judged["vqa"]["accuracy"] > 85
    assert judged["true_captions"] > 70


def test_captions_are_explained_up_to_their_end() -> None:
    image, answers = draw_scene(draw_picture(parts.shapes(), "test", 1).scene, 128), []
    for more in ([], ["model.max_new_tokens=2", "model.layers={text:[1,2]}"]):
        config: PerturbModelConfig = typed(
            composed("perturb", "model=huggingface", "model.path=embedded", *more), PerturbModelConfig
        )
        loaded = load_model(config)
        scorer = scorer_of(loaded.model, loaded.processor, loaded.max_new_tokens)
        (asked,) = scorer.ask([Pair(0, image, DESCRIBE)])
        options: dict[str, Any] = {"layers": loaded.layers, "max_new_tokens": loaded.max_new_tokens}
        found = explain(loaded.model, loaded.processor, image, DESCRIBE, **options)
        answers.append(found.answer.text)
        assert scorer.text(asked) == found.answer.text
        assert len(found.trace.attention_steps) == (2 if more else 3 + 4)
    (whole,) = generate(loaded.model, loaded.processor, [(image, DESCRIBE)], 100)
    assert answers == [whole, " ".join(whole.split()[:2])]
    assert len(whole.split()) > 10


def test_it_is_small() -> None:
    sizes = [path.stat().st_size for path in LLAVA.iterdir()]
    assert sum(sizes) <= 10e6
    words = json.loads((LLAVA / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(words) <= 2000
    weights = [*FOLDER.rglob("*.safetensors"), *(PROJECT / "clipmapper" / "encoder").rglob("*.safetensors")]
    assert len(weights) == 6
    assert sum(path.stat().st_size for path in weights) <= 25e6


def test_its_vision_tower_is_the_embedded_encoder() -> None:
    import torch
    from transformers import LlavaForConditionalGeneration

    own = LlavaForConditionalGeneration.from_pretrained(LLAVA).model.vision_tower.state_dict()
    for name, weight in parts.clip()[1].vision_model.state_dict().items():
        torch.testing.assert_close(own[name], weight, atol=1e-3, rtol=1e-3)
