"""A folder is complete or not there, and what a killed writer left goes with the next one.

Seen to fail: without `remove_leftovers`; with it taking the folder of a writer that is alive; with a folder renamed
over one that has files.
"""

import signal
import subprocess
import sys
from pathlib import Path

from podium.storage.staging import remove_leftovers, staged

WRITER = """
import os, signal, sys
from pathlib import Path
from podium.storage.staging import staged
with staged(Path(sys.argv[1])) as temporary:
    (temporary / "weights").write_text("half")
    print("writing", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def writer(folder: Path, what: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    killed = writer(tmp_path / "model", "die")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [f".model.partial-{killed.pid}"]
    (tmp_path / ".model-b.partial-1x").mkdir()
    with staged(tmp_path / "model") as temporary:
        (temporary / "weights").write_text("whole")
        assert names(tmp_path) == sorted([".model-b.partial-1x", temporary.name])
    assert (tmp_path / "model" / "weights").read_text() == "whole"


def test_a_writer_that_is_alive_keeps_its_folder(tmp_path: Path) -> None:
    with writer(tmp_path / "model", "wait") as alive:
        assert alive.stdout is not None
        assert alive.stdout.readline() == "writing\n"
        # Another container sees the folder, but no such process.
        (tmp_path / f".model.partial-{alive.pid}").rename(tmp_path / ".model.partial-4194305")
        remove_leftovers(tmp_path / "model")
        assert names(tmp_path) == [".model.partial-4194305"]
        alive.kill()
        alive.communicate(timeout=60)
    remove_leftovers(tmp_path / "model")
    assert names(tmp_path) == []


def test_a_folder_inside_is_replaced_too(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with staged(tmp_path / "model") as temporary:
            (temporary / "templates").mkdir()
            (temporary / "templates" / f"{text}.jinja").write_text(text)
    assert names(tmp_path / "model" / "templates") == ["two.jinja"]
    assert not [name for name in names(tmp_path) if name.startswith(".")]
