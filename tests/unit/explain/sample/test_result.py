"""Files and HTML of an explanation."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import sample_models as samples
from PIL import Image
from sample_models import photo

import explain

pytest.importorskip("transformers")
TEXT = 'is <the> & "red"?'
VOID = {"img", "br"}


class Checked(HTMLParser):
    """A parser that fails on tags that do not match, and keeps what a reader sees."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] != "style":
            self.seen.append(data)


@pytest.fixture(scope="module")
def explained():
    model, processor = samples.llava()
    return explain.explain(model, processor, photo(), TEXT, target="red", explainer=["weighted", "rollout"])


def test_html_is_valid_escaped_and_self_contained(explained):
    page = Checked()
    page.feed(explained._repr_html_())
    page.close()
    assert page.open == []
    assert TEXT in page.seen
    assert {"<", "the", ">", "&", "weighted", "rollout"} <= {text.strip() for text in page.seen}
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for word in ("&lt;", "&gt;", "&amp;"):
        assert f">{word}</span>" in explained._repr_html_()


def test_a_word_shows_its_map_where_there_is_an_interaction(explained):
    page = explained._repr_html_()
    assert explained.interaction[0].shape == (len(explained.words), 3, 3)
    for number in range(len(explained.words)):
        assert f".w{number}:hover~div .m{number}" in page
        assert page.count(f'class="map word m{number}"') == 2  # once for each explainer
    model, processor = samples.clip()
    apart = explain.explain(model, processor, photo(), TEXT)
    assert apart.interaction is None
    assert not re.search(r":hover|map word", apart._repr_html_())


def test_files(explained, tmp_path):
    (pdf,) = explained.save(tmp_path / "x.pdf")
    assert pdf == tmp_path / "x.pdf"
    assert pdf.read_bytes().startswith(b"%PDF")
    assert [file.name for file in explained.save(tmp_path / "both")] == ["both.png", "both.pdf"]
    with Image.open(tmp_path / "both.png") as drawn:
        assert len(drawn.getcolors(1 << 24)) > 50
    with pytest.raises(ValueError, match="unknown format 'jpg'"):
        explained.save(tmp_path / "x.jpg")
    assert explained._repr_png_().startswith(b"\x89PNG")


def test_several_images_are_one_figure(tmp_path):
    model, processor = samples.llava()
    two = explain.explain(model, processor, [photo(), photo(seed=1)], TEXT, target="red")
    assert [file.name for file in two.save(tmp_path / "x.png")] == ["x.png"]
    content = two.figure_content()
    for shown, given in zip(content.photos, [photo(), photo(seed=1)], strict=True):
        np.testing.assert_array_equal(shown.pixels, np.asarray(given))
    for shown, scores in zip(content.explanations[0].maps, two.images, strict=True):
        np.testing.assert_array_equal(shown, scores)
    assert two._repr_html_().count('class="photo"') == 2


def test_a_text_alone_is_a_figure_of_words(tmp_path):
    model, processor = samples.bert()
    alone = explain.explain(model, processor, text="what color is red", explainer=["weighted", "genatt"])
    assert [file.name for file in alone.save(tmp_path / "x")] == ["x.png", "x.pdf"]
    content = alone.figure_content()
    assert (content.photos, [each.maps for each in content.explanations]) == ([], [[], []])
    assert list(content.words) == ["what", "color", "is", "red"]
    assert alone._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(("probability", "shown"), [(0.0, "(<1\u00a0%)"), (1e-9, "(<1\u00a0%)"), (0.5, "(50\u00a0%)")])
def test_a_small_probability_is_not_shown_as_zero(explained, probability, shown):
    sample = replace(explained.sample, answer=replace(explained.answer, probability=probability))
    assert shown in unescape(replace(explained, sample=sample)._repr_html_())


def test_an_explanation_without_words_or_probability(tmp_path):
    model, processor = samples.vit()
    assert explain.explain(model, processor, photo()).save(tmp_path / "a.png")
    model, processor = samples.clip()
    similar = explain.explain(model, processor, photo(), TEXT)
    assert similar.save(tmp_path / "b.png")
    assert f"similarity {similar.answer.similarity:.3f}" in similar._repr_html_()
    assert similar.figure_content().probability is None


def test_the_note_of_a_figure_says_what_is_explained(explained):
    assert explained.figure_content().caption == "explained: red"
    model, processor = samples.vit()
    own = explain.explain(model, processor, photo())
    assert own.figure_content().caption == ""
    contrast = explain.explain(model, processor, photo(), target=(1, 2))
    assert contrast.figure_content().caption == "explained: LABEL_1 rather than LABEL_2"


def test_show_opens_the_figure_outside_of_a_notebook(explained, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image.size))
    explained.show()
    assert len(shown) == 1
