"""The page as HTML: what it contains, that it loads nothing, and that texts cannot become markup."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_runs import (
    EVIL,
    Parsed,
    answers,
    captions,
    page_of,
    write_all,
    write_config,
    write_evaluation,
    write_explain,
    write_llava,
    write_localisation,
    write_perturb,
)

from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.places import CONFIGS
from perturbation.page import assemble
from perturbation.page.assemble import make_page
from perturbation.page.runs import RESULTS, Run, read_run, runs_of
from perturbation.reproduce.stages import DONE, FAILED, SKIPPED, Stage, save

ADDRESS = ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")


def loads_nothing(page: Parsed, text: str) -> None:
    """Check that every address is a data URI or a place on the page, and that no style names one."""
    for _, attributes in page.tags:
        for name in ADDRESS:
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|@import|@font-face", text)
    assert page.every("link") == [{"rel": "icon", "href": "data:,"}]  # else a browser asks for favicon.ico


def has_alternatives(page: Parsed) -> None:
    """Check that every picture has a text, or is a hidden part of one that has."""
    assert not page.every("img")
    pictures = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert all(len(attributes["aria-label"]) > 10 for attributes in pictures)
    for attributes in page.every("svg"):
        assert attributes.get("role") == "img" or attributes.get("aria-hidden") == "true"


def test_runs_of_every_command_with_results_have_a_section() -> None:
    """A new command is covered by itself."""
    without = {"report", "reproduce", "export", "cache", "fetch", "demo"}  # they write no results of their own
    commands = {path.stem for path in CONFIGS.glob("*.yaml")} - without
    assert set(RESULTS) == commands == {name for names in assemble.GROUPS.values() for name in names}


def test_a_generative_model_and_explanations_of_it(tmp_path: Path) -> None:
    model = {"name": "huggingface", "path": "embedded", "max_new_tokens": 40, "layers": None}
    runs = [write_llava(tmp_path / "llava"), write_perturb(tmp_path / "all"), write_perturb(tmp_path / "layers")]
    write_config(runs[1], "perturb", model=model)
    write_config(runs[2], "perturb", model={**model, "layers": {"text": [0, 1]}})
    page = Parsed(page_of(*runs, root=tmp_path))
    sizes = "(4 layers, 2 heads)"
    assert f"LLaVA: the vision tower of the embedded encoder, a projector, and a Llama decoder {sizes}" in page.text
    assert "Captions that are true of the scene, test: 80.0" in page.text
    assert "huggingface, embedded, layers {'text': [0, 1]}" in page.text
    assert "40" not in page.text.split("huggingface, embedded")[1][:12]


def test_six_runs(tmp_path: Path) -> None:
    text = page_of(*write_all(tmp_path), root=tmp_path)
    page = Parsed(text)
    loads_nothing(page, text)
    has_alternatives(page)
    for title in ("Findings", "Models and data", "Explanations", "Perturbation tests", "Localisation", "Randomisation"):
        assert title in page.text
    for said in (
        "Accuracy of the answers, test: 87.5\u00a0% of 8 questions.",
        "good and similar are above every control (random).",
        "above chance (0.200) for near.",
        "not told apart from 0 for falls.",
        "python scripts/perturb.py explainer=all",
        "python 3.11.0, torch 2.9.0",
        "mapper b (2 layers, width 16, 2 heads) on the frozen encoder shapes-tiny, weights embedded",
    ):
        assert said in page.text, said
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"][1:] for attributes in page.every("a")}
    assert links <= set(ids)
    assert len(text.encode()) < 400_000


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    folders = write_all(tmp_path)
    assert page_of(*folders) == page_of(*folders)


@pytest.mark.parametrize("count", [0, 1])
def test_few_runs(tmp_path: Path, count: int) -> None:
    text = page_of(*[write_evaluation(tmp_path / "run")][:count])
    assert ("There are no runs yet" in text) == (count == 0)
    assert ("Findings" in text) == (count == 1)
    loads_nothing(Parsed(text), text)


def test_captions_only(tmp_path: Path) -> None:
    page = Parsed(page_of(write_explain(tmp_path / "run", captions())))
    has_alternatives(page)
    assert "None of the runs on this page has numbers" in page.text
    assert [each["data-label"] for each in page.every("span") if "data-label" in each][:2] == [
        "relevance to “a”",
        "relevance to “kite”",
    ]


def test_a_model_without_a_grid_and_one_without_words(tmp_path: Path) -> None:
    bare = answers(("weighted",))
    bare["maps"][0] |= {"patches": None, "words": []}
    bare |= {"words": [], "interaction": None}
    page = Parsed(page_of(write_explain(tmp_path / "run", bare)))
    has_alternatives(page)
    assert "no scores of patches" in page.text
    assert not [each for each in page.every("image") if each.get("href", "data:image/webp")[:15] != "data:image/webp"]


def test_an_experiment_is_the_runs_of_its_stages(tmp_path: Path) -> None:
    write_explain(tmp_path / "good")
    write_evaluation(tmp_path / "old")  # results of an earlier attempt
    save(
        [
            Stage("good", "t", "explain", [], [], DONE),
            Stage("old", "t", "evaluate", [], [], FAILED, 1.0, "the disk <b> is full"),
            Stage("never", "t", "perturb", ["checkpoint=<good>"], [], SKIPPED, 0.0, "it needs the stage old"),
        ],
        tmp_path,
    )
    runs = runs_of(tmp_path)
    assert [run.command for run in runs] == ["explain", "evaluate", "perturb"]
    page, problems = make_page(runs, 3, tmp_path)
    assert problems == {
        tmp_path / "old": "failed: the disk <b> is full",
        tmp_path / "never": "skipped: it needs the stage old",
    }
    text = re.sub(r"\s+", " ", Parsed(page).text)
    assert "2 of 3 runs have no results:" in text
    assert text.count("failed: the disk <b> is full") == 2  # at the top, and with how the run was made
    assert f"python scripts/perturb.py checkpoint={tmp_path}/good" in text
    assert "87.5" not in text
    assert "have no results" not in Parsed(page_of(tmp_path / "good")).text


def test_unfinished_and_foreign_runs_are_listed_and_the_others_shown(tmp_path: Path) -> None:
    write_config(tmp_path / "killed", "train", "seed=7")
    foreign = write_perturb(tmp_path / "foreign")
    write_json(foreign / "perturbation.json", {"rows": [{"explainer": "x"}]})
    folders = [tmp_path / "killed", write_evaluation(tmp_path / "good"), foreign]
    text, problems = make_page([read_run(folder) for folder in folders], 12, tmp_path)
    page = Parsed(text)
    assert problems.keys() == {tmp_path / "killed", foreign}
    assert "unfinished: it was stopped or is still running" in page.text
    assert "python scripts/train.py seed=7" in page.text
    assert "not shown: its files have another format than this version writes (KeyError: " in page.text
    assert "Accuracy of the answers, test: 87.5" in page.text


@pytest.mark.parametrize("key", ["rows", "gaps", "config", "questions"])
@pytest.mark.parametrize("value", [None, [], {}, "text", 3])
def test_no_foreign_value_breaks_the_page(tmp_path: Path, key: str, value: object) -> None:
    folder = write_perturb(tmp_path / "run")
    write_json(folder / "perturbation.json", {**read_json(folder / "perturbation.json"), key: value})
    text, _ = make_page([read_run(folder), read_run(write_evaluation(tmp_path / "good"))], 12, tmp_path)
    assert "Accuracy of the answers, test: 87.5" in text


EVIL_RUNS: dict[str, Callable[[Path], Path]] = {
    "explainer of answers": lambda folder: write_explain(folder, answers((EVIL, "b"))),
    "explainer of captions": lambda folder: write_explain(folder, captions((EVIL, "b"))),
    "question": lambda folder: write_explain(folder, answers(question=EVIL)),
    "caption and its words": lambda folder: write_explain(folder, captions(text=EVIL)),
    "answer, note and words": lambda folder: write_explain(
        folder, {**answers(), "answer": EVIL, "note": EVIL, "words": [EVIL, "red"]}
    ),
    "explainer of a test": lambda folder: write_perturb(folder, {EVIL: 30.0, "random": 0.0, "good": 20.0}),
    "digest": lambda folder: write_perturb(folder, questions=EVIL),
    "config": lambda folder: write_evil_config(folder),
    "evidence": lambda folder: write_evil_rows(write_localisation(folder), "localisation.json"),
    "metrics": lambda folder: write_evil_metrics(folder),
}


def write_evil_config(folder: Path) -> Path:
    folder = write_evaluation(folder)
    write_config(folder, "evaluate", f"answer={EVIL}", data={"name": EVIL}, mapper={"name": EVIL, **sizes()})
    return folder


def sizes() -> dict[str, int]:
    return {"layers": 1, "width": 2, "heads": 1}


def write_evil_rows(folder: Path, name: str) -> Path:
    content = read_json(folder / name)
    for row in content["rows"]:
        row["explainer"] = EVIL if row["explainer"] == "near" else row["explainer"]
    write_json(folder / name, {**content, "checkpoint": EVIL, "versions": {EVIL: EVIL}})
    return folder


def write_evil_metrics(folder: Path) -> Path:
    content = read_json(write_evaluation(folder) / "metrics.json")
    content["test"]["by_question_type"] = {EVIL: 1.0}
    write_json(folder / "metrics.json", {**content, EVIL: content["test"], "checkpoint": EVIL})
    row = {"image_id": 1, "caption": EVIL, "references": [EVIL], "true": True}
    write_json(folder / "captions_test.json", [row])
    return folder


@pytest.mark.parametrize("where", EVIL_RUNS)
def test_a_text_cannot_become_markup(tmp_path: Path, where: str) -> None:
    text = page_of(EVIL_RUNS[where](tmp_path / "run"))
    page = Parsed(text)
    shown = re.sub(r"\s+", " ", page.text)
    assert re.sub(r"\s+", " ", EVIL) in shown
    assert len(page.every("script")) == 1
    assert not page.every("img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "1337" not in page.text
    loads_nothing(page, text)


def test_warnings_are_shown_with_their_sample(tmp_path: Path) -> None:
    run = write_explain(tmp_path / "answers", answers())
    entries = [{"question_id": 1, "warnings": [f"far: {EVIL}"]}, {"question_id": 2, "warnings": ["of another sample"]}]
    write_json(run / "warnings.json", entries)
    page = Parsed(page_of(run))
    assert f"Warning: far: {EVIL}" in re.sub(r"\s+", " ", page.text)
    assert "of another sample" not in page.text
    run = write_explain(tmp_path / "captions", captions(), task={"name": "caption"})
    write_json(run / "warnings.json", [{"image_id": 1, "warnings": ["far away"]}])
    assert "Warning: far away" in re.sub(r"\s+", " ", Parsed(page_of(run)).text)


def test_the_warnings_of_an_explanation_are_those_that_its_checksum_covers(tmp_path: Path) -> None:
    run = write_explain(tmp_path / "answers", {**answers(), "warnings": ["far away"]})
    name = answers()["name"]
    write_json(run / "warnings.json", [{"question_id": int(name.rpartition("_")[2]), "warnings": ["changed"]}])
    text = re.sub(r"\s+", " ", Parsed(page_of(run)).text)
    assert "Warning: far away" in text
    assert "changed" not in text


def test_a_lone_surrogate_is_named_instead_of_shown(tmp_path: Path) -> None:
    run = read_run(write_explain(tmp_path / "run", answers(question="\ud800 kite")))
    assert run.results == {}
    assert "pictures.jsonl: line 1" in run.problem


def test_only_the_script_of_the_page_may_run(tmp_path: Path) -> None:
    text = page_of(write_evaluation(tmp_path / "run"))
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [each["content"] for each in Parsed(text).every("meta") if "http-equiv" in each]
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_a_page_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(write_evaluation(tmp_path / "run"))
    monkeypatch.setattr(assemble, "LIMIT", 5000)
    with pytest.raises(UserError, match=r"would have 0\.0 MB, more than 0: give fewer runs, or fewer samples=…"):
        make_page([run], 12, tmp_path)


def test_runs_have_the_order_of_the_commands(tmp_path: Path) -> None:
    folders = write_all(tmp_path)
    unknown = Run(tmp_path, "", "", "", {}, problem="unfinished")
    text, _ = make_page([unknown, *(read_run(folder) for folder in reversed(folders))], 12, tmp_path)
    found = re.findall(r">Run (\d): (\w+)", text.split('id="runs"')[1])
    assert [int(number) for number, _ in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [name for _, name in found][:2] == ["evaluate", "explain"]
    assert found[-1][1] == "unknown"


def test_the_title_names_the_data_and_the_model_that_were_used(tmp_path: Path) -> None:
    own = write_explain(tmp_path / "own", image="star.png")
    file = write_evaluation(tmp_path / "file")
    write_config(file, "evaluate", predictions="submission.json")
    text = page_of(write_explain(tmp_path / "split"), own, file)
    titles = re.findall(r">(Run \d: [^<]+)</h3>", text)
    assert titles == [
        "Run 1: evaluate",
        "Run 2: explain (vqa, shapes, mapper b)",
        "Run 3: explain (vqa, own image, mapper b)",
    ]
    assert text.count("<dt>model</dt>") == 2


def test_runs_on_the_same_samples_share_a_table(tmp_path: Path) -> None:
    folders = [write_perturb(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    assert "Gap of the accuracy in runs on the same samples" in page_of(*folders)
    folders.append(write_perturb(tmp_path / "other", questions="others"))
    assert "Gap of the accuracy in runs on the same samples" not in page_of(folders[0], folders[2])
