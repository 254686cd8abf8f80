"""What is copied from far away does not stay behind. Seen to fail without the clean-up at the end of the process."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import fsspec
from podium.storage import remote
fsspec.filesystem("memory").pipe("/bucket/model/deep/file", b"x" * 100)
place = remote.download("memory://bucket/model", "model")
assert (place / "deep" / "file").stat().st_size == 100
print(remote.scratch("policy"))
"""


def test_local_copies_are_removed_with_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path
    assert not list(tmp_path.iterdir())
