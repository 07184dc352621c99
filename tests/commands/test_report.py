"""The command ``report``: its page from real runs, and the page in a browser."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from page_checks import faults
from perturb_runs import Trained
from PIL import Image
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
)
from tiny_runs import composed

from clipmapper.cli.written_config import write_config as record_config

Command = Callable[..., tuple[int, str, list[str]]]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


def test_a_page_of_real_runs(trained: Trained, whole: Path, tmp_path: Path, command: Command) -> None:
    shared = (*trained.tiny.overrides, f"checkpoint={trained.checkpoint}", f"paths.runs={tmp_path}")
    status, out, errors = command("explain", *shared, "explainer=paper", "samples=2", "formats=[png]")
    assert (status, errors) == (0, [])
    explained = out.splitlines()[0].removeprefix("run folder: ")
    folder = tmp_path / "page"
    status, out, errors = command(
        "report", f"runs=[{explained},{whole}]", f"paths.runs={tmp_path}", f"hydra.run.dir={folder}"
    )
    assert (status, errors) == (0, [])
    assert f"2 of 2 runs have results; the page is {folder / 'report.html'}" in out
    page = Parsed((folder / "report.html").read_text(encoding="utf-8"))
    assert len([each for each in page.every("figure") if each.get("class") == "sample"]) == 2
    words = [each for each in page.every("span") if "data-heat" in each]
    assert all(each["data-heat"].startswith("data:image/png;base64,") for each in words)
    assert len(words) > 2 * 4 * 3  # two questions, four explainers
    assert "python scripts/explain.py" in page.text
    assert "Image, gap of the accuracy: weighted " in page.text
    assert "Ceiling" in page.text


def test_the_newest_runs_are_the_default(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(tmp_path / "runs" / "evaluate" / "vqa-shapes-b" / "time")
    write_config(tmp_path / "runs" / "train" / "vqa-shapes-b" / "time", "train")
    status, out, errors = command("report", f"paths.root={tmp_path}")
    assert (status, errors) == (0, [])
    assert "1 of 2 runs have results; the page is " in out
    assert "time is unfinished: it was stopped or is still running" in capsys.readouterr().err
    status, out, errors = command("report", f"paths.root={tmp_path / 'none'}")
    assert (status, errors) == (0, [])
    assert "0 of 0 runs have results" in out


@pytest.mark.slow
def test_links_that_form_a_loop_are_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, argument in (("report", "runs=[{}]"), ("train", "resume={}"), ("perturb", "resume={}")):
        status, _, errors = command(name, f"paths.root={tmp_path}", argument.format(tmp_path / "loop"))
        assert (status, len(errors)) == (1, 1)
        assert str(tmp_path / "loop") in errors[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs=[{tmp}/none]"], "none: no such folder; give run folders"),
        (["runs=[{tmp}]"], "contains neither results nor config.yaml; give run folders"),
        (["runs=none"], "runs=none is not a list; write runs=[…]"),
        (["samples=-1"], "samples=-1 must be 0 or more"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path: Path, command: Command, arguments: list[str], said: str) -> None:
    status, _, errors = command(
        "report", *(each.format(tmp=tmp_path) for each in arguments), f"paths.root={tmp_path / 'root'}"
    )
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


def test_a_run_twice_is_shown_once(tmp_path: Path, command: Command) -> None:
    folder = write_evaluation(tmp_path / "run")
    _, out, _ = command("report", f"runs=[{folder},{folder}/]", f"paths.root={tmp_path}")
    assert "1 of 1 runs" in out


def test_the_config_begins_with_the_command_line(tmp_path: Path) -> None:
    config = composed("report", "samples=3")
    record_config(tmp_path, config, "scripts/report.py 'a\nb\u2028c'")
    first, second, *_ = (tmp_path / "config.yaml").read_text(encoding="utf-8").split("\n")
    assert first == "# python scripts/report.py 'a b c'"
    assert second == "paths:"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of this machine with pages, and the paths that it was asked for."""
    folder, asked = tmp_path_factory.mktemp("site"), list[str]()
    names = (EVIL, "b")
    pages = {
        "all": page_of(*write_all(folder / "all")),
        "evil": page_of(
            write_explain(folder / "evil", answers(names, EVIL)), write_explain(folder / "words", captions(names, EVIL))
        ),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", asked
    server.shutdown()


class Opened:
    """A page in the browser, with its requests, and its messages and dialogs."""

    def __init__(self, browser: Any, address: str, **options: Any):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests, self.complaints = list[str](), list[str]()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(address)

    def loaded(self) -> list[str]:
        """Return what was loaded; data URIs are parts of the page."""
        return [url for url in self.requests if not url.startswith("data:")]


@pytest.fixture
def opened(browser: Any, site: tuple[str, list[str]]) -> Iterator[Callable[..., Opened]]:
    """A function that opens a page of the site."""
    contexts = []

    def open_page(name: str = "all", **options: Any) -> Opened:
        found = Opened(browser, f"{site[0]}/{name}.html", viewport=WIDE, **options)
        contexts.append(found.context)
        return found

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_renders_alone(
    opened: Callable[..., Opened], site: tuple[str, list[str]], scheme: str, size: dict[str, int]
) -> None:
    site[1].clear()
    found = opened(color_scheme=scheme)
    found.page.set_viewport_size(size)
    assert found.complaints == []
    assert found.loaded() == [f"{site[0]}/all.html"]
    assert site[1] == ["/all.html"]
    wide = found.page.evaluate("document.documentElement.scrollWidth")
    assert wide == size["width"]  # wide tables scroll in their boxes
    assert faults(found.page) == []
    shot = Image.open(BytesIO(found.page.screenshot(full_page=True))).convert("L")
    assert shot.width == size["width"]
    assert (shot.getpixel((2, 2)) > 200) == (scheme == "light")
    low, high = shot.getextrema()
    assert high - low > 150  # there is ink on the page


def test_hovering_over_a_word_shows_its_map(opened: Callable[..., Opened]) -> None:
    page = opened().page
    tab = page.locator(".tab").first
    heat, word = tab.locator(".heat"), tab.locator(".word").nth(1)
    whole = heat.get_attribute("href")
    word.hover()
    assert heat.get_attribute("href") == word.get_attribute("data-heat") != whole
    assert tab.locator(".shows").text_content() == "interaction with “red”"
    assert tab.locator(".map").get_attribute("aria-label") == "weighted: interaction with “red”"
    tab.locator("h4").hover()
    assert heat.get_attribute("href") == whole
    assert tab.locator(".shows").text_content() == "relevance to the answer"
    assert "strongest patch" in tab.locator(".map").get_attribute("aria-label")


def test_a_word_of_a_caption_shows_the_outline_of_what_it_names(opened: Callable[..., Opened]) -> None:
    page = opened().page
    tab = page.locator(".tab", has=page.locator(".word[data-outline]")).first
    lines, word = tab.locator(".map .evidence"), tab.locator(".word[data-outline]")
    assert [line.get_attribute("d") for line in lines.all()] == ["", ""]
    word.hover()
    assert {line.get_attribute("d") for line in lines.all()} == {word.get_attribute("data-outline")}
    tab.locator("h4").hover()
    assert [line.get_attribute("d") for line in lines.all()] == ["", ""]


def test_an_explainer_is_chosen_by_its_tab(opened: Callable[..., Opened]) -> None:
    page = opened().page
    box = page.locator(".tabs").first
    panels, tabs = box.locator(".tab"), box.get_by_role("tab")
    assert tabs.all_text_contents() == ["all", "weighted", "genatt"]
    assert [panels.nth(k).is_visible() for k in range(2)] == [True, True]
    tabs.nth(2).click()
    assert [panels.nth(k).is_visible() for k in range(2)] == [False, True]
    assert [tab.get_attribute("aria-selected") for tab in tabs.all()] == ["false", "false", "true"]
    page.keyboard.press("ArrowRight")  # from the last tab to the first one
    assert tabs.nth(0).get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert [panels.nth(k).is_visible() for k in range(2)] == [True, False]
    assert page.locator(".tabs").nth(1).locator(".tab").nth(1).is_visible()  # other samples stay as they are


def test_words_are_reached_by_the_keyboard(opened: Callable[..., Opened]) -> None:
    page = opened().page
    box = page.locator(".tabs").first
    tab = box.locator(".tab").first
    heat, words = tab.locator(".heat"), tab.locator(".word")
    maps = [heat.get_attribute("href"), *(word.get_attribute("data-heat") for word in words.all())]
    assert len(set(maps)) == 3
    box.get_by_role("tab").first.focus()
    found = []
    for key in ("Tab", "ArrowRight", "ArrowRight", "End", "Escape"):
        page.keyboard.press(key)
        found.append(heat.get_attribute("href"))
    assert found == [maps[1], maps[2], maps[1], maps[2], maps[0]]
    words.nth(1).focus()
    page.keyboard.press("Tab")  # one stop for all words of an explainer
    second = box.locator(".tab").nth(1)
    assert second.locator(".heat").get_attribute("href") == second.locator(".word").first.get_attribute("data-heat")
    assert heat.get_attribute("href") == maps[0]


def test_a_name_in_the_legend_lets_its_curve_stand_out(opened: Callable[..., Opened]) -> None:
    page = opened().page
    chart = page.locator(".chart").first
    chart.locator(".legend li").nth(1).hover()
    dim = chart.locator("g.series").evaluate_all("all => all.map(each => each.classList.contains('dim'))")
    assert dim == [True, False, True] * 4
    page.locator("h1").hover()
    assert chart.locator(".dim").count() == 0


def test_everything_is_readable_without_the_script_and_in_print(opened: Callable[..., Opened]) -> None:
    still = opened(java_script_enabled=False).page
    assert still.locator(".tab").count() > 2
    assert all(panel.is_visible() for panel in still.locator(".tab").all())
    page = opened().page
    page.locator(".tabs").first.get_by_role("tab").nth(1).click()
    page.emulate_media(media="print")
    assert all(panel.is_visible() for panel in page.locator(".tab").all())
    assert not page.get_by_role("tab").first.is_visible()
    folded = page.locator("details > figure").evaluate_all("all => all.map(each => each.checkVisibility())")
    assert folded
    assert all(folded)  # tables that the reader must open are open
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"


def test_markup_in_a_text_does_nothing_and_is_shown(opened: Callable[..., Opened]) -> None:
    found = opened("evil")
    page = found.page
    for tab in page.get_by_role("tab").all():
        tab.click()
    for word in page.locator(".word[data-heat]").all():
        if word.is_visible():
            word.hover()
    page.mouse.move(600, 400)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main img").count() == 0
    assert found.complaints == []
    assert len(found.loaded()) == 1
    shown = page.locator(".sample .title").first.text_content()
    assert shown == EVIL
    assert page.get_by_role("tab").nth(1).text_content() == EVIL
    assert page.locator(".shows").last.is_visible()
