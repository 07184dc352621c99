"""Merging of CLIP's pieces into words without losing a letter or a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from clipmapper.encoder.pieces import merge_clip_pieces

FLOATS = st.floats(-1e3, 1e3)


def test_clip_pieces_are_merged_into_words():
    pieces = ["what</w>", "circ", "le</w>", "?</w>"]
    assert merge_clip_pieces(pieces, [1, 2, 4, 8]) == [("what", 1), ("circle", 6), ("?", 8)]
    marked = ["<start_of_text>", "circ", "<end_of_text>"]
    assert merge_clip_pieces(marked, [1, 2, 4]) == [("<start_of_text>", 1), ("circ", 2), ("<end_of_text>", 4)]


def test_pieces_of_clips_tokenizer_are_merged_back_into_the_words():
    tokenizer = SimpleTokenizer()
    words = ["naïve", "déjà", "café", "😀", "塔", "unfathomableness", "red"]
    pieces = [tokenizer.decoder[token] for token in tokenizer.encode(" ".join(words))]
    assert len(pieces) > len(words)
    assert [word for word, _ in merge_clip_pieces(pieces, range(len(pieces)))] == words


@given(st.lists(st.tuples(st.sampled_from(["a", "b</w>", "</w>", "<end_of_text>", "Ã©"]), FLOATS)))
def test_merging_clip_pieces_preserves_the_sum_of_scores(rows):
    words = merge_clip_pieces([piece for piece, _ in rows], [score for _, score in rows])
    assert sum(score for _, score in words) == pytest.approx(sum(score for _, score in rows), abs=1e-6)


def test_different_numbers_of_pieces_and_scores_are_an_error():
    with pytest.raises(ValueError, match="1 pieces, 1 end flags and 2 scores"):
        merge_clip_pieces(["a"], [1, 2])
