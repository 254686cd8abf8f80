"""What is copied from far away does not stay behind. Seen to fail without the clean-up at the end of the process."""

import subprocess
import sys
from pathlib import Path

import pytest
import s3fs

from podium.storage import remote

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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, {}),
        ({"AWS_ENDPOINT_URL": "http://store:8333"}, {"endpoint": "http://store:8333", "aws_region": "us-east-1"}),
        (
            {"AWS_ENDPOINT_URL_S3": "https://storage.example.org", "AWS_DEFAULT_REGION": "here"},
            {"endpoint": "https://storage.example.org", "aws_region": "here"},
        ),
        ({"AWS_PROFILE": "mine"}, {"endpoint": "http://profile:9000", "aws_region": "there"}),
    ],
)
def test_tensorstore_turns_to_where_the_client_of_files_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], expected: dict[str, str]
) -> None:
    """Variables or a profile say where; neither asks the network."""
    (tmp_path / "config").write_text("[profile mine]\nendpoint_url = http://profile:9000\nregion = there\n")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    for name, value in (keys | settings).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert remote.s3_service("s3://bucket/run") == expected
    s3fs.S3FileSystem.clear_instance_cache()
