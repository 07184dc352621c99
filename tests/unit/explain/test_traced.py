"""Tokens, words, boxes and scores of traced batches, compared with rows of R that are picked by hand."""

import pytest
import torch
from adapter_models import TEXTS, images, lxmert_inputs, tiny_clip, tiny_lxmert, tiny_vilt, vilt_inputs
from explain_traces import make_trace

from explain import Traced, TraceError, explainers
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt

WEIGHTED = explainers.Weighted()


def make_traced(readout=None, **options):
    """Return three samples: a class token and 4 patches, and 4 text tokens of which the question has tokens 1 and 2."""
    removable = torch.tensor([[False] + [True] * 4 + [False, True, True, False]] * 3)
    readout = {"image": torch.tensor([0, 0, 0])} if readout is None else readout
    logits = torch.tensor([[0.0, 1.0], [3.0, 2.0], [0.0, 1.0]])
    return Traced(trace=make_trace("a"), logits=logits, removable=removable, readout=readout, **options)


def test_each_modality_is_explained_by_the_row_of_its_readout():
    image, text = torch.tensor([0, 1, 0]), torch.tensor([8, 7, 6])
    traced = make_traced({"image": image, "text": text})
    matrix = WEIGHTED(traced.trace).matrix
    found = traced.explain(WEIGHTED)
    for b in range(3):
        torch.testing.assert_close(found["image"][b], matrix[b, image[b], 1:5])
        torch.testing.assert_close(found["text"][b], matrix[b, text[b], 5:9])
    assert torch.equal(traced.rows, image)


@pytest.mark.parametrize("named", [("image",), ("image", "text")])
def test_a_fusion_model_has_one_row_for_both_modalities(named):
    rows = torch.tensor([0, 5, 8])
    traced = make_traced(dict.fromkeys(named, rows))
    calls = []

    class Counting(explainers.Weighted):
        def scores(self, trace, rows):
            calls.append(rows)
            return super().scores(trace, rows)

    found = traced.explain(Counting())
    assert len(calls) == 1
    row = WEIGHTED(traced.trace).row(rows)
    torch.testing.assert_close(found["image"], row[:, 1:5])
    torch.testing.assert_close(found["text"], row[:, 5:])


def test_a_words_score_is_the_sum_of_its_tokens_scores():
    words = [[("circle", [6, 7])], [("a", [6]), ("b", [7]), ("c", [8])], []]
    found = make_traced(words=words).explain(WEIGHTED)["text"]
    row = WEIGHTED(make_trace("a"), rows=torch.zeros(3, dtype=torch.long))
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 0] = row[0, 6] + row[0, 7]
    expected[1] = row[1, 6:9]
    torch.testing.assert_close(found, expected)
    assert make_traced(words=[[], [], []]).explain(WEIGHTED)["text"].shape == (3, 0)


def test_scores_of_each_modality_and_answers():
    traced = make_traced()
    scores = torch.arange(9).expand(3, -1)
    assert traced.patches == 4
    assert traced.scores(scores, "image")[0].tolist() == [1, 2, 3, 4]
    assert traced.scores(scores, "text")[0].tolist() == [5, 6, 7, 8]
    assert traced.answers.tolist() == [1, 0, 1]
    with pytest.raises(TraceError, match="unknown modality 'sound'"):
        traced.scores(scores, "sound")


def test_the_number_of_patches_does_not_depend_on_which_sample_is_padded():
    removable = make_traced().removable
    removable[0, 3:5] = False
    traced = Traced(trace=make_trace("a"), logits=torch.zeros(3, 1), removable=removable, readout=make_traced().readout)
    assert traced.patches == 4
    removable[:, :5] = False
    assert traced.patches == 0


def test_the_repr_is_one_line():
    assert repr(make_traced()) == (
        "Traced(batch of 3, 4 patches, 4 text tokens, 7 steps, logits [3, 2]; no grid, boxes or words)"
    )
    assert repr(make_traced(grid=(2, 2), words=[[]] * 3)).endswith("logits [3, 2]; grid, words)")
    assert repr(make_traced(picture_ids=[7, 7, 9])).endswith("logits [3, 2]; picture_ids)")


class Pieces:
    """A WordPiece tokenizer of numbers, in which odd numbers continue a word."""

    def convert_ids_to_tokens(self, number):
        return f"##{number}" if number % 2 else f"w{number}"


class BytePairs:
    """A tokenizer of numbers like open_clip's, in which even numbers end a word."""

    def __init__(self):
        self.decoder = {number: f"p{number}" + ("" if number % 2 else "</w>") for number in range(30)}

    def decode(self, ids):
        return "".join(self.decoder[number] for number in ids).replace("</w>", " ")


def test_tokens_words_boxes_and_scores_of_open_clip():
    pytest.importorskip("open_clip")
    traced = trace_open_clip(tiny_clip(), images(), TEXTS, tokenizer=BytePairs())
    patches, outside = [False] + [True] * 9, [False] * 3
    assert traced.removable.tolist() == [
        [*patches, False, True, False, *outside, False, False],
        [*patches, False, True, True, True, False, *outside],
    ]
    assert {m: rows.tolist() for m, rows in traced.readout.items()} == {"image": [0, 0], "text": [12, 14]}
    assert traced.rows.tolist() == [0, 0]
    assert traced.grid == (3, 3)
    assert traced.boxes[[0, 1, 3, 8]].tolist() == [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [16, 16, 24, 24]]
    assert traced.words == [[("p5", [11])], [("p5p9p4", [11, 12, 13])]]
    cosine = torch.nn.functional.cosine_similarity(
        tiny_clip().encode_image(images()), tiny_clip().encode_text(TEXTS), eps=1e-12
    )
    torch.testing.assert_close(traced.logits, cosine[:, None])
    matrix = WEIGHTED(traced.trace).matrix
    found = traced.explain(WEIGHTED)
    torch.testing.assert_close(found["image"], matrix[:, 0, 1:10])
    torch.testing.assert_close(found["text"][0], torch.stack([matrix[0, 12, 11]]))
    torch.testing.assert_close(found["text"][1], torch.stack([matrix[1, 14, 11:14].sum()]))


def test_a_patch_of_open_clip_depends_on_the_pixels_of_its_box():
    """A change of the pixels of one box changes only that patch's embedding."""
    pytest.importorskip("open_clip")
    plain = trace_open_clip(tiny_clip(), images(), TEXTS)
    for place, (left, top, right, bottom) in enumerate(plain.boxes.tolist()):
        pixels = images()
        pixels[:, :, top:bottom, left:right] += 1
        inputs = trace_open_clip(tiny_clip(), pixels, TEXTS).trace.inputs["image"]
        changed = (inputs - plain.trace.inputs["image"]).abs().sum(-1) > 1e-9
        assert changed.nonzero().tolist() == [[0, 1 + place], [1, 1 + place]]


def test_tokens_words_boxes_and_scores_of_vilt():
    pytest.importorskip("transformers")
    traced = trace_vilt(tiny_vilt(), vilt_inputs(), tokenizer=Pieces())
    assert traced.removable.tolist() == [
        [False, True, False, False, False, False, *[True] * 9],
        [False, True, True, True, False, False, *[True] * 6, *[False] * 3],
    ]
    assert {m: rows.tolist() for m, rows in traced.readout.items()} == {"text": [0, 0], "image": [0, 0]}
    assert traced.words == [[("##7", [1])], [("##9", [1]), ("w87", [2, 3])]]
    assert traced.grid is None  # the images differ in size
    assert traced.boxes.shape == (2, 9, 4)
    assert traced.boxes[0, [0, 2, 3]].tolist() == [[0, 0, 8, 8], [16, 0, 24, 8], [0, 8, 8, 16]]
    assert traced.boxes[1, [0, 1, 2, 5]].tolist() == [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 16, 16, 24]]
    assert not traced.boxes[1, 6:].any()
    row = WEIGHTED(traced.trace).matrix[:, 0]
    found = traced.explain(WEIGHTED)
    torch.testing.assert_close(found["image"], row[:, 6:])
    assert not found["image"][1, 6:].any()
    torch.testing.assert_close(found["text"][1], torch.stack([row[1, 1], row[1, 2:4].sum()]))


@pytest.mark.parametrize("sample", [0, 1])
def test_images_of_one_size_have_a_grid(sample):
    pytest.importorskip("transformers")
    width = (24, 16)[sample]
    inputs = {name: tensor[sample : sample + 1] for name, tensor in vilt_inputs().items()}
    inputs["pixel_values"], inputs["pixel_mask"] = (
        inputs["pixel_values"][..., :width],
        inputs["pixel_mask"][..., :width],
    )
    traced = trace_vilt(tiny_vilt(), inputs)
    assert traced.grid == (3, width // 8)
    assert traced.patches == 3 * width // 8
    for place, (left, top, right, bottom) in enumerate(traced.boxes.tolist()):
        pixels = inputs["pixel_values"].clone()
        pixels[:, :, top:bottom, left:right] += 1
        other = trace_vilt(tiny_vilt(), {**inputs, "pixel_values": pixels}).trace.inputs["image"]
        changed = (other - traced.trace.inputs["image"]).abs().sum(-1) > 1e-9
        assert changed.nonzero().tolist() == [[0, 1 + place]]


def test_tokens_words_boxes_and_scores_of_lxmert():
    pytest.importorskip("transformers")
    inputs = lxmert_inputs()
    traced = trace_lxmert(tiny_lxmert(), inputs, tokenizer=Pieces())
    assert traced.removable.tolist() == [
        [False, True, False, False, *[True] * 4],
        [False, True, True, False, *[True] * 3, False],
    ]
    assert traced.grid is None
    assert traced.boxes is inputs["visual_pos"]
    assert traced.words == [[("##7", [1])], [("##9", [1]), ("w8", [2])]]
    assert traced.rows.tolist() == [0, 0]
    row = WEIGHTED(traced.trace).matrix[:, 0]
    found = traced.explain(WEIGHTED)
    torch.testing.assert_close(found["image"], row[:, 4:])
    torch.testing.assert_close(found["text"][1], row[1, 1:3])
    torch.testing.assert_close(traced.logits, tiny_lxmert()(**inputs).question_answering_score)
