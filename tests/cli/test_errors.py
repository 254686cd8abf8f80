"""What the operating system and missing packages say becomes one or two lines, wherever a command meets it.

Seen to fail: with FileNotFoundError among the errors of a path (a fault of ours was taken for the user's); with EFBIG
left out; without the longest name in the table of extras (google.protobuf was taken for Vertex's).
"""

import errno
import os
import tomllib
from pathlib import Path

import pytest

from podium.errors import UserError, exists, expanded, explained, extra_of, file_error, path_argument, why_full

ROOT = Path(__file__).resolve().parents[2]


def os_error(number: int, *rest: str) -> OSError:
    return OSError(number, os.strerror(number), *rest)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (os_error(errno.EACCES, "a/b"), "a/b: permission denied; "),
        (os_error(errno.ENAMETOOLONG, "x" * 300), f"{'x' * 80}...{'x' * 30}: the name is too long for a path; "),
        (os_error(errno.ELOOP, "a"), "a: symbolic links that lead back to themselves; "),
        (os_error(errno.ENOTDIR, "a/b"), "a/b: a part of this path is a file, not a folder; "),
        (os_error(errno.EISDIR, "a"), "a: is a folder; "),
        (os_error(errno.EROFS, "a"), "a: the file system is read-only; "),
        (os_error(errno.EMFILE, "a"), "a: too many open files; "),
        (os_error(errno.ENOSPC), "this machine: no space left on the disk; "),
        (os_error(errno.EDQUOT), "this machine: the disk quota is used up; "),
        (os_error(errno.EFBIG, "a"), "this machine: a file would be larger than ulimit -f or this disk allows; "),
        (ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='27']"), "this machine: a file would be larger than "),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "this machine: no "),
        (RuntimeError("Could not determine home directory."), "~: this user has no home folder; "),
        (RuntimeError("Symlink loop from '/a'"), "'/a': symbolic links that lead back to themselves; "),
        (ModuleNotFoundError("No module named 'jax'", name="jax.numpy"), "jax.numpy is not installed; write: pip "),
        (UserError("a: b"), "a: b"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_user_can_mend_is_said_in_a_line(error: Exception, expected: str) -> None:
    meant = explained(error)
    assert meant is not None
    assert str(meant).startswith(expected)
    assert len(str(meant).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "podium/table.json"),
        OSError("no number"),
        os_error(errno.EACCES),
        RuntimeError("stage reward wrote no output"),
        ValueError("shapes do not fit"),
        ModuleNotFoundError("No module named 'podium.nothing'", name="podium.nothing"),
    ],
    ids=repr,
)
def test_anything_else_is_a_fault_of_ours(error: Exception) -> None:
    assert explained(error) is None


def test_a_full_disk_is_found_behind_what_a_library_made_of_it() -> None:
    try:
        try:
            raise os_error(errno.EFBIG)
        except OSError as inner:
            raise RuntimeError("cannot write the array") from inner
    except RuntimeError as error:
        assert str(why_full(error)).startswith("a file would be larger")


def test_a_current_folder_that_was_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()
    assert str(file_error(caught.value)) == "the current folder has been removed; change to one that is there"


def test_nothing_is_at_what_cannot_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for path in ("x" * 300, "a\0b", tmp_path / "loop", tmp_path / "file" / "in", tmp_path / "none"):
        assert not exists(path)
    assert exists(tmp_path / "file")


def test_what_cannot_be_seen_is_not_taken_for_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise os_error(errno.EACCES, path)

    monkeypatch.setattr("podium.errors.os.stat", refuse)
    with pytest.raises(UserError, match="closed/a: permission denied"):
        exists("closed/a")


def test_a_home_folder_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a") == Path("/home/me/a")
    assert expanded("a/~b") == Path("a/~b")
    with pytest.raises(UserError, match=r"^~nosuchuser/a: no such user; write the path in full$"):
        expanded("~nosuchuser/a")
    with pytest.raises(UserError, match=r"^'a.*b': no path holds the character 0"):
        expanded("a\0b")
    with pytest.raises(UserError, match="is not UTF-8"):
        expanded("a\udcff")


def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(UserError, match=r"^~/a: this user has no home folder; write the path in full$"):
        expanded("~/a")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_argument_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(UserError, match=r"^--out is empty; name a folder$"):
        path_argument("--out", "a folder")(text)


def test_every_package_of_an_extra_is_known_with_its_extra() -> None:
    """An import name is the distribution's, but for a few; a requirement without its row would be a traceback."""
    named = {
        "huggingface-hub": "huggingface_hub",
        "orbax-checkpoint": "orbax",
        "ml-dtypes": "ml_dtypes",
        "kfp-server-api": "kfp_server_api",
        "google-cloud-aiplatform": "google.cloud.aiplatform",
    }
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {extra: {line.split(">")[0] for line in lines} for extra, lines in declared.items()}
    for extra in ("train", "import", "cloud", "kfp", "vertex"):
        for name in names[extra]:
            # kfp-kubernetes is a part of kfp's own namespace; fsspec comes with two extras.
            found = extra_of(named.get(name, "kfp" if name == "kfp-kubernetes" else name))
            assert name in names.get(found or "", ()), name
    assert extra_of("google.protobuf.json_format") == "kfp"
    assert extra_of("yaml") is None
