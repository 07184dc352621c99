"""The demo in a real browser, for which every host but this machine is unknown, and its command."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_pages import PROJECT, demo_page
from page_checks import faults
from PIL import Image

from perturbation.demo import serving
from perturbation.demo.page import Page

pytest.importorskip("gradio")
EVIL = "<img src=x onerror=alert(1)> {{7*7}} ${7*7} <b>&amp;"
PATIENCE = 60_000  # milliseconds, for a machine that does much else
Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return demo_page(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def address(page: Page) -> Iterator[str]:
    serving.forbid_outside()
    with serving.running(page, "127.0.0.1", 0) as found:
        yield found


class Visit:
    """A user with a browser of their own, who has opened the page and sees the first answer."""

    def __init__(self, browser: Any, address: str, **options: Any):
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.outside, self.complaints = list[str](), list[str]()
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(address)
        self.page.locator(".strip").first.wait_for()

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.outside.append(url)

    def shows(self, selector: str, text: str) -> None:
        """Wait until an element contains a text."""
        self.page.locator(selector, has_text=text).first.wait_for()

    def asks(self, question: str) -> None:
        self.page.get_by_label("Question").first.fill(question)
        self.page.get_by_role("button", name="Ask").click()

    def close(self) -> None:
        """End the visit, in which no other host was asked for anything, and the browser complained of nothing."""
        self.context.close()
        assert self.outside == []
        assert self.complaints == []


def test_a_visit(browser: Any, address: str, page: Page) -> None:
    visit = Visit(browser, address)
    visit.asks("what color is the cross?")
    visit.shows("#answer .first", "yellow")
    visit.shows(".strip .said", "yellow")
    visit.shows(".now", "Nothing is removed: yellow")
    visit.page.locator(".cell").nth(7).click()
    visit.shows(".now", "Without 1 patch and 0 words")
    visit.page.locator(".word-of-parts", has_text="cross").click()
    visit.shows(".now", "Without 1 patch and 1 word")
    assert visit.page.locator('[data-part="w4"]').get_attribute("aria-pressed") == "true"
    visit.page.keyboard.press("Enter")  # the word has kept the focus
    visit.shows(".now", "Without 1 patch and 0 words")
    visit.page.get_by_role("button", name="Put everything back").click()
    visit.shows(".now", "Nothing is removed")
    assert visit.page.locator("#maps .photo").count() == 1
    visit.page.get_by_label("scene 2").click()
    question = page.scenes[1].questions[0]
    visit.shows(".words-of-parts", question.split()[-1].strip("?"))
    assert visit.page.get_by_label("Question").first.input_value() == question
    visit.close()


def test_odd_input_is_one_line_on_the_page(browser: Any, address: str, tmp_path: Path) -> None:
    visit = Visit(browser, address)
    visit.asks("")
    visit.shows("#answer .problem", "the question is empty")
    visit.asks("x" * 10_000)
    visit.shows("#answer .problem", "the question has 10,000 characters")
    visit.asks(EVIL)
    visit.shows("#answer .warning", "no training question contains: img")
    words = "".join(visit.page.locator(".word-of-parts").all_inner_texts())
    assert words == "<imgsrc=xonerror=alert(1)>{{7*7}}${7*7}<b>&"
    (tmp_path / "note.png").write_text("no image")
    visit.page.locator("input[type=file]").set_input_files(tmp_path / "note.png")
    visit.shows("#ask .problem", "note.png: not an image that Pillow can read")
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.gif", save_all=True, append_images=[Image.fromarray(255 - noise)])
    visit.page.locator("input[type=file]").set_input_files(tmp_path / "noise.gif")
    visit.shows("#answer .warning", "the picture has 2 frames")
    visit.shows("#answer .warning", "the image is far from the training images")
    assert visit.page.locator("#ask .problem").count() == 0
    visit.close()


@pytest.mark.slow
def test_two_visitors_do_not_mix(browser: Any, address: str) -> None:
    first, second = Visit(browser, address), Visit(browser, address)
    second.page.get_by_label("scene 2").click()
    first.asks("what color is the cross?")
    second.asks("is there a zebra?")
    second.shows("#answer .warning", "no training question contains: zebra")
    first.shows("#answer .first", "yellow")
    first.page.locator(".cell").first.click()
    first.shows(".now", "Without 1 patch")
    second.page.locator(".word-of-parts", has_text="zebra").click()
    second.shows(".now", "Without 0 patches and 1 word")
    assert "Without 1 patch and 0 words" in " ".join(first.page.locator(".now").inner_text().split())
    assert first.page.locator("#answer .warning").count() == 0
    first.close()
    second.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser: Any, address: str, scheme: str) -> None:
    visit = Visit(browser, address, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    assert faults(visit.page) == []
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 384
    assert light == (scheme == "light")
    visit.close()


def test_a_taken_port_is_one_line(command: Command, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, _, errors = command("demo", f"port={port}", f"paths.root={tmp_path}")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith(f"error: port={port} is taken on 127.0.0.1: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_explainers_that_need_other_images_are_not_offered(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page opens with those of the config, and offers all that need only the asked question."""
    pages: list[Page] = []
    monkeypatch.setattr(serving, "serve", lambda page, *_: pages.append(page))
    more = ("scenes=2", f"paths.root={tmp_path}", "port=0", "threads=1")
    status, _, errors = command("demo", "explainer.names=[rollout,shuffled,weighted]", "explainer=all", *more)
    assert (status, errors) == (0, [])
    [page] = pages
    assert page.chosen == ["rollout", "weighted"]
    assert {"weighted", "rollout", "random", "partial_lrp"} <= page.explainers.keys()
    assert page.explainers.keys().isdisjoint({"shuffled", "depth_matched"})
    assert len(page.scenes) == 2
    status, _, errors = command("demo", "explainer=shuffled", *more, f"hydra.run.dir={tmp_path / 'other'}")
    assert status == 1
    assert errors[-1].startswith("error: explainer=shuffled needs samples of other images: ")


@pytest.mark.slow
def test_the_command_serves_this_machine_until_ctrl_c(tmp_path: Path) -> None:
    line = [sys.executable, "scripts/demo.py", "port=0", f"paths.root={tmp_path}", "scenes=2"]
    started = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    print(f"started in {time.monotonic() - started:.1f} s")
    found = re.fullmatch(r"the demo is at (http://127\.0\.0\.1:\d+/) until Ctrl-C\n", lines[1])
    assert found is not None, lines
    with urllib.request.urlopen(found[1], timeout=60) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("stopped by Ctrl-C: demo; nothing is kept; ")
    assert not list((tmp_path / "runs").rglob("config.yaml"))
