"""Tokenizers of the COCO caption evaluation: Penn Treebank (PTB) tokens in lower case, without punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

from clipmapper.metrics.java.process import PACKAGE, NotAvailable, run_java

_JAR = PACKAGE / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
_PUNCTUATION = frozenset(PUNCTUATIONS)

# A line separator in a caption would shift every later caption to the wrong image. Half a surrogate pair can't be
# encoded.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_SUFFIX = re.compile(r"(?<=\w)(n['’]t|['’](?:s|m|d|re|ve|ll))(?!\w)")
_DOUBLE = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(lem|gim)(me)\b")
_BRACKETS = str.maketrans({"(": " -lrb- ", ")": " -rrb- ", "{": " -lcb- ", "}": " -rcb- ", "’": "'"})
_TOKEN = re.compile(
    r"-[lr][rc]b-|(?<!\S)(?:n't|'(?:s|m|d|re|ve|ll))(?!\S)"  # brackets and suffixes, separated before by _plain
    r"|\d+(?:[.,:/]\d+)+"  # 3.5, 1,000, 10:30, 1/2
    r"|(?:[a-z]\.){2,}"  # a.m., u.s.
    r"|\w+(?:[-'./]\w+)*|[$%&#@*+=<>/\\|]"
)


def one_line(caption: str) -> str:
    """Return the caption with every line separator and control character replaced by a space."""
    return _CONTROL.sub(" ", caption)


def ptb_tokens(captions: Sequence[str]) -> list[str]:
    """Return each caption's tokens, separated by spaces, from the Stanford tokenizer that pycocoevalcap contains.

    An empty line separates the captions, so that a caption's tokens don't depend on the next caption ("no." before a
    number) and shifted lines are noticed. No file is written.

    Raises:
        NotAvailable: Java is missing or fails, or its output lines don't match the captions.
    """
    given = "\n\n".join([*map(one_line, captions), "end"])
    arguments = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    done = run_java("-cp", str(_JAR), "edu.stanford.nlp.process.PTBTokenizer", *arguments, given=given)
    lines = done.stdout.decode(errors="replace").split("\n")
    if len(lines) < 2 * len(captions) + 1 or lines[2 * len(captions)] != "end" or any(lines[1 : 2 * len(captions) : 2]):
        raise NotAvailable("its output lines don't match the captions; install another Java runtime")
    return [_without_punctuation(line.rstrip().split(" ")) for line in lines[: 2 * len(captions) : 2]]


def plain_tokens(captions: Sequence[str]) -> list[str]:
    """Return each caption's tokens, separated by spaces, without Java.

    The tokens of ordinary captions equal those of :func:`ptb_tokens`; PTB's rules for abbreviations, links and smileys
    are missing.
    """
    return [_plain(caption) for caption in captions]


def _plain(caption: str) -> str:
    text = one_line(caption).lower().translate(_BRACKETS)
    text = _DOUBLE.sub(lambda found: " ".join(filter(None, found.groups())), text)
    return _without_punctuation(_TOKEN.findall(_SUFFIX.sub(r" \1 ", text)))


def _without_punctuation(tokens: Sequence[str]) -> str:
    return " ".join(token for token in tokens if token not in _PUNCTUATION)
