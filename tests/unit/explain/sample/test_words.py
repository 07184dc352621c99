"""The words of a question in a prompt: by characters, whatever surrounds it and however images are replaced."""

import pytest
from sample_models import QUESTION, tokenizer

from explain.sample.words import as_read, question_span, question_words, spans_of

IMAGE, START, END = 3, 5, 6


def found(prompt, asked, ids=None):
    words = tokenizer()
    before = prompt.rindex(asked)
    coded = words(prompt)["input_ids"]
    given = coded if ids is None else ids(coded)
    return question_words(given, prompt, (before, before + len(asked)), words, {}, {IMAGE})


def test_a_template_that_repeats_the_question_before_and_after_it():
    def render(question):
        return f"{QUESTION} USER: {question} ASSISTANT: {QUESTION} .".replace("is the star? .", "is . the star?")

    prompt, (start, stop) = question_span(render, QUESTION)
    assert (start, prompt[start:stop]) == (len(QUESTION) + len(" USER: "), QUESTION)


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:5]])
def test_a_template_that_changes_the_question_is_refused(change):
    with pytest.raises(ValueError, match="changes the question"):
        question_span(lambda question: f"USER: {change(question)}", "what color?")


def test_a_template_may_strip_the_question():
    prompt, (start, stop) = question_span(lambda question: f"USER: {question.strip()}!", " what color? ")
    assert prompt[start:stop] == "what color?"


@pytest.mark.parametrize(
    ("prompt", "shift"),
    [("<image> the what color", 3), ("what color <image> the", 0), ("what the <image> what color <image> the", 3)],
)
def test_positions_move_by_the_repeated_placeholders(prompt, shift):
    """Each placeholder becomes a mark, three tokens and a mark... or four tokens for one, a shift of 3."""
    words = found(prompt, "what color", lambda ids: [k for i in ids for k in ([IMAGE] * 4 if i == IMAGE else [i])])
    place = len(tokenizer()(prompt[: prompt.rindex("what color")])["input_ids"])
    assert words == [("what", [place + shift]), ("color", [place + 1 + shift])]


def test_placeholders_may_be_replaced_by_other_tokens_as_well():
    words = found(
        "<image> the what color",
        "what color",
        lambda ids: [k for i in ids for k in ([START, IMAGE, IMAGE, END] if i == IMAGE else [i])],
    )
    assert [places for _, places in words] == [[5], [6]]


def test_a_processor_may_add_tokens_around_the_text():
    words = found("what color", "what color", lambda ids: [IMAGE, IMAGE, 1, *ids, 2])
    assert [places for _, places in words] == [[3], [4]]


def test_tokens_of_another_tokenizer_are_refused():
    with pytest.raises(ValueError, match="the processor does not fit"):
        found("the what color", "what color", lambda ids: [id + 1 for id in ids])


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="use_fast=True"):
        question_words([1], "what", (0, 4), object(), {}, set())


def test_the_characters_of_words_that_follow_one_another():
    assert spans_of("a cat, a cat", ["a", "cat", "a", "cat"]) == [(0, 1), (2, 5), (7, 8), (9, 12)]
    assert spans_of("Is the Cat?", ["is", "the", "cat", "?"]) == [(0, 2), (3, 6), (7, 10), (10, 11)]
    with pytest.raises(ValueError, match="substring not found"):
        spans_of("the cat", ["cat", "the"])


@pytest.mark.parametrize(
    ("text", "words", "read"),
    [
        ("Is the  Cat RED?", ["is", "the", "cat", "red", "?"], None),
        ("İs it red?", ["i̇s", "it", "red", "?"], "i̇s it red ?"),  # its lower case has another length
        ("a &amp; b", ["a", "&", "b"], "a & b"),
        ("ﬁve’s", ["five", "'s"], "five 's"),
        ("a cat that is cut off", ["a", "cat"], "a cat"),
    ],
)
def test_a_text_as_a_tokenizer_reads_it(text, words, read):
    assert as_read(text, words) == read
    assert len(spans_of(read or text, words)) == len(words)
