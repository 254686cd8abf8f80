"""Try a chat template, a program that came with a model, in a process of its own with bounded time and memory.

A template can run for ever (loops in loops, 10 ** (10 ** 9)) or ask for all memory ('a' * 10 ** 11), and nothing within
the process that runs it could stop it. So what a template writes for some conversations is first asked of this file,
run as a program: the system ends it at its limits. It imports nothing but Jinja, so that it starts in 0.2 seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# A template writes a conversation of four words in milliseconds.
SECONDS = 5
BYTES = 2**30
# For a machine that is busy with other things.
WAIT_SECONDS = 120
MAX_CHARACTERS = 1_000_000


class TemplateFailed(Exception):
    """What a template raised, or the limit that it went over, as one line."""


def reason_of(error: BaseException) -> str:
    """Return what an error says, as one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def try_template(template: str, conversation: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> None:
    """Render a conversation once with the template, within limits.

    Raises TemplateFailed where it goes over one. What it raises itself is left to who renders it here.
    """
    if len(template) > MAX_CHARACTERS:
        raise TemplateFailed(f"it has {len(template):,} characters, more than {MAX_CHARACTERS:,}")
    task = {**variables, "template": template, "messages": list(conversation), "seconds": SECONDS, "bytes": BYTES}
    outcome = _tried(json.dumps(task, sort_keys=True))
    if outcome:
        raise TemplateFailed(outcome)


@functools.lru_cache(maxsize=64)
def _tried(task: str) -> str:
    """Return what is wrong with a template, or nothing."""
    limits = f"it needs more than {SECONDS} seconds or {BYTES / 2**30:g} GiB for a short conversation"
    command = [sys.executable, "-P", __file__]
    try:
        done = subprocess.run(command, input=task, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return limits
    if done.returncode < 0:
        return limits
    assert done.returncode == 0, done.stderr
    outcome = done.stdout.strip()
    return limits if outcome == "limit" else outcome


def _try_here(task: dict[str, Any]) -> str:
    import resource

    environment = _environment()
    seconds = task.pop("seconds")
    # A system without such a limit, as macOS has none on addresses, still keeps the other.
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, task.pop("bytes")),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
    written = 0
    try:
        for piece in environment.from_string(task.pop("template")).generate(tools=None, documents=None, **task):
            written += len(piece)
            if written > MAX_CHARACTERS:
                return f"it writes more than {MAX_CHARACTERS:,} characters for a short conversation"
    except MemoryError:
        return "limit"
    # Its own errors are told by who renders it in earnest.
    except Exception:
        return ""
    return ""


def _environment() -> Any:
    """Return what transformers renders a template in, as far as a template can tell."""
    import datetime

    import jinja2.ext
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """Blocks that mark what the assistant says; here they are what they hold."""

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> Iterator[str]:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


if __name__ == "__main__":
    print(_try_here(json.load(sys.stdin)))
