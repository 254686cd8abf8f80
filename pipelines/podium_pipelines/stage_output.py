"""Which lines of a pod's log are the stage's own: around it, KFP's launcher and Argo write theirs."""

import re
from collections.abc import Iterable, Iterator

# glog: a letter for the level, month and day, time, thread, and a file of Go; C++ libraries write the same with .cc.
_LAUNCHER = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.-]+\.go:\d+\] ?(?P<text>.*)")
_ARGO = re.compile(r'time=\S+ level=\w+ .*\bargo=true\b|\{"time":.*"argo": ?true\b.*\}')
# Argo's last word on a container that failed.
_ENDED = re.compile(r"Error: exit status \d+")
_ERRORS = ("E", "F")


def own_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that the stage printed; JSON that the launcher spreads over lines ends with its last brace."""
    closing = ""
    for line in lines:
        if closing:
            closing = "" if line == closing else closing
        elif match := _LAUNCHER.fullmatch(line):
            closing = "}" if match["text"].endswith("{") else ""
        elif not _ARGO.match(line) and not _ENDED.fullmatch(line):
            yield line


def why(lines: Iterable[str], *, count: int = 8) -> tuple[str, ...]:
    """Return why a stage failed: what Podium said last, else its last lines, else the launcher's error."""
    everything = list(lines)
    own = [line for line in own_lines(everything) if line.strip()]
    said = [line for line in own[-count:] if line.startswith("podium: ")]
    found = said or own[-count:]
    if not found:
        errors = (_LAUNCHER.fullmatch(line) for line in everything if line.startswith(_ERRORS))
        found = [match["text"] for match in errors if match][:1]
    return tuple(found)
