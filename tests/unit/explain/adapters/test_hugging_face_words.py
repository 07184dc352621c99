"""Words made of the pieces of four kinds of tokenizers, and which tokens of a text can be removed."""

import pytest
import torch
from hugging_face_models import bert, clip, llava

from explain import explainers
from explain.adapters import trace_hugging_face
from explain.adapters.hugging_face.text import words_of

transformers = pytest.importorskip("transformers")


def tokenizer(pieces, decoder):
    """Return a tokenizer of ``transformers`` with the given pieces, of which the first is special."""
    from tokenizers import Tokenizer, models

    whole = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token=pieces[0]))
    whole.decoder = decoder
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole, pad_token=pieces[0])


def kinds():
    from tokenizers import decoders

    return {
        "wordpiece": (["[PAD]", "a", "red", "cir", "##cle"], decoders.WordPiece()),
        "sentencepiece": (["<pad>", "▁a", "▁red", "▁cir", "cle"], decoders.Metaspace()),
        "byte-level": (["<pad>", "a", "Ġred", "Ġcir", "cle"], decoders.ByteLevel()),
        "clip": (["<pad>", "a</w>", "red</w>", "cir", "cle</w>"], decoders.BPEDecoder()),
    }


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece", "byte-level", "clip"])
def test_pieces_are_grouped_to_words(kind):
    ids = torch.tensor([[0, 1, 2, 3, 4, 0], [0, 3, 4, 2, 0, 0]])
    words = words_of(ids, ids > 0, 10, tokenizer(*kinds()[kind]))
    assert words == [
        [("a", [11]), ("red", [12]), ("circle", [13, 14])],
        [("circle", [11, 12]), ("red", [13])],
    ]


def test_every_token_of_a_tokenizer_without_marks_is_a_word():
    from tokenizers import decoders

    ids = torch.tensor([[0, 1, 2, 3]])
    words = words_of(ids, ids > 0, 10, tokenizer(["<pad>", "red", "circle", "."], decoders.WordPiece()))
    assert words == [[("red", [11]), ("circle", [12]), (".", [13])]]


def test_pieces_on_both_sides_of_an_image_are_two_words():
    ids = torch.tensor([[3, 0, 4]])
    words = words_of(ids, ids > 0, 0, tokenizer(*kinds()["sentencepiece"]))
    assert [positions for _, positions in words[0]] == [[0], [2]]


def test_words_have_the_scores_of_their_tokens_and_special_tokens_none():
    from tokenizers import decoders

    pieces = ["<pad>", "<s>", "</s>", *(f"▁w{k}" if k % 2 else f"x{k}" for k in range(3, 40))]
    model, inputs = llava()
    traced = trace_hugging_face(model, inputs, tokenizer=tokenizer(pieces, decoders.Metaspace()))
    # Ids 1, 5, 6, 7 and 1, 8, 9, 6, 4 beside the image, of which 1 begins the text. Tokens follow 10 image columns.
    assert [[positions for _, positions in words] for words in traced.words] == [
        [[11, 12], [13]],
        [[11], [12, 13, 14]],
    ]
    assert traced.removable[:, 10:].tolist() == [[False, True, True, True, False], [False, True, True, True, True]]
    row = explainers.Weighted()(traced.trace, traced.rows)
    found = traced.explain(explainers.Weighted())["text"]
    torch.testing.assert_close(found[0], torch.stack([row[0, 11] + row[0, 12], row[0, 13]]))
    torch.testing.assert_close(found[1], torch.stack([row[1, 11], row[1, 12:15].sum()]))


def test_markers_of_encoders_are_not_removable():
    model, inputs = bert()
    assert trace_hugging_face(model, inputs).removable.tolist() == [
        [False, True, False, False, False],
        [False, True, True, True, False],
    ]
    model, inputs = clip()
    assert trace_hugging_face(model, inputs).removable[:, 10:].tolist() == [
        [False, True, False, False, False],
        [False, True, True, True, False],
    ]


def test_the_image_tokens_of_the_text_are_no_text():
    model, inputs = llava()
    trace = trace_hugging_face(model, inputs).trace
    assert trace.sizes["text"] == 5
    assert trace.valid[:, 10:].sum(1).tolist() == [4, 5]
