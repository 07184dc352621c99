"""Reader of the code blocks and command lines in README, in the pages of ``docs``, and in the help of the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from public import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))  # their first lines are the help of the commands
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class CommandLine:
    """One call of a command; ``arguments`` are without the shell's quotes, ``in_block`` is False for calls in text."""

    page: str
    line: int
    script: str
    arguments: tuple[str, ...]
    in_block: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.script} {' '.join(self.arguments)}"


def blocks(language: str | None = None) -> list[Block]:
    """Return all blocks, or those of one language ("" for blocks without a language)."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(PROJECT).as_posix()
        found += [Block(name, text.count("\n", 0, m.start(2)) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]
    return [block for block in found if language is None or block.language == language]


def shell_lines() -> list[CommandLine]:
    """Return the command lines in blocks, in help and in backquotes in text, each once, without those of sessions."""
    found: dict[tuple[str, tuple[str, ...]], CommandLine] = {}
    for is_block, lines in ((True, _in_blocks()), (True, _in_help()), (False, _in_text())):
        for page, line, text in lines:
            for script, arguments in commands_of(text):
                found.setdefault((script, arguments), CommandLine(page, line, script, arguments, is_block))
    return list(found.values())


def sessions() -> list[tuple[CommandLine, str]]:
    """Return the command lines after a ``$``, each with the line of output below it."""
    found = []
    for block in blocks():
        lines = block.code.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("$ "):
                for script, arguments in commands_of(line.removeprefix("$ ")):
                    about = CommandLine(block.page, block.line + number, script, arguments, True)
                    found.append((about, lines[number + 1]))
    return found


def _in_blocks() -> Iterator[tuple[str, int, str]]:
    for block in blocks():
        if block.language in ("", "bash", "sh", "console", "shell"):
            code = re.sub(r" *\\\n *", lambda m: " ", block.code)
            lines = enumerate(code.splitlines(), block.line)
            yield from ((block.page, number, line) for number, line in lines if not line.startswith("$ "))


def _in_help() -> Iterator[tuple[str, int, str]]:
    for path in CONFIGS:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        examples = ((number, line) for number, line in lines if line.startswith("# python scripts/"))
        yield from ((f"configs/{path.name}", number, line.removeprefix("# ")) for number, line in examples)


def _in_text() -> Iterator[tuple[str, int, str]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        bare = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)
        for m in re.finditer(r"`([^`]+)`", bare):
            yield page.relative_to(PROJECT).as_posix(), bare.count("\n", 0, m.start()) + 1, " ".join(m[1].split())


def commands_of(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield name and arguments of each ``python scripts/NAME.py …`` and ``clipmapper NAME …`` in one line of shell."""
    words = shlex.split(text, comments=True) if re.search(r"scripts/\w+\.py|^clipmapper ", text) else []
    calls: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", ";", "|"):
            calls.append([])
        else:
            calls[-1].append(word)
    for call in calls:
        if len(call) > 1 and call[0] == "python" and (m := re.fullmatch(r"scripts/(\w+)\.py", call[1])):
            yield m[1], tuple(call[2:])
        elif len(call) > 1 and call[0] == "clipmapper" and not call[1].startswith("-"):
            yield call[1], tuple(call[2:])
