"""Read the project's documentation: fenced blocks, the commands in them, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = {"bash", "sh", "shell", "console", "zsh"}
OURS = re.compile(r"(\.venv/bin/)?(podium|make|python|pip) ")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`]*)$")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` is the second word after the fence, the file that the block shows."""

    document: Path
    line: int
    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a shell block, without prompt and comment, its continued lines joined."""

    document: Path
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """The command as the shell splits it."""
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}: {self.text}"


def documents() -> list[Path]:
    """Return every Markdown file of the project that a user or developer reads."""
    folders = ("docs", "components", "pipelines", "containers", "examples", "benchmarks")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return [*sorted(ROOT.glob("*.md")), *sorted(found)]


def blocks(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document; `line` is that of the first line inside."""
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence is None:
            inside.append(line)
        elif opened is None:
            language, _, title = fence["info"].strip().partition(" ")
            opened, inside = (number + 1, language, title.strip()), []
        else:
            yield Block(document, *opened, "\n".join(inside))
            opened = None
    assert opened is None, f"{document}: the block that starts before line {opened[0]} has no end"


def commands(document: Path) -> Iterator[Command]:
    """Yield the commands of a document's shell blocks; in `console` blocks those after a `$` prompt.

    A block without a language is one where its first line calls a program of ours. Three spaces end a command there:
    an explanation follows, or another command.
    """
    for block in blocks(document):
        if block.language in SHELL:
            yield from _lines(block)
        elif not block.language and OURS.match(block.text):
            for number, line in enumerate(block.text.splitlines(), block.line):
                parts = [part for part in re.split(r" {3,}", line.strip()) if OURS.match(part)]
                yield from (Command(document, number, shlex.join(shlex.split(part))) for part in parts)


def _lines(block: Block) -> Iterator[Command]:
    """Yield the commands of a shell block, continued lines joined, comments left out."""
    pending, start = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        text = line.strip()
        if not pending:
            if block.language == "console" and not text.startswith("$ "):
                continue
            text, start = text.removeprefix("$ "), number
        if text.endswith("\\"):
            pending += text[:-1]
            continue
        if words := shlex.split(pending + text, comments=True):
            yield Command(block.document, start, shlex.join(words))
        pending = ""


def links(document: Path) -> Iterator[tuple[int, str]]:
    """Yield line and target of every link to a file of the project."""
    fenced = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            for link in LINK.finditer(line):
                if not re.match(r"[a-z]+:|#", link["target"]):
                    yield number, link["target"].partition("#")[0]
