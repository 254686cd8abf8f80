"""SHA256SUMS beside weights: files that lost or changed a byte on their way are noticed when the folder is opened."""

import hashlib
from pathlib import Path

import pytest

from podium.errors import UserError
from podium.models import load
from podium.models.weights.digests import verify, verify_file
from support.folders import write_folder


def write_sums(folder: Path, *names: str) -> Path:
    """Write what `sha256sum NAME ...` prints."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return folder


def flip(path: Path, place: int) -> None:
    """Change one bit: size and header stay as they are."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    folder = write_sums(write_folder(tmp_path), "model.safetensors", "config.json", "tokenizer.json")
    load(folder)
    flip(folder / "model.safetensors", -2)
    with pytest.raises(UserError, match=r"model\.safetensors: its content is not what SHA256SUMS says"):
        load(folder)
    (folder / "SHA256SUMS").unlink()
    load(folder)  # nothing else can tell


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja"])
def test_other_files_count_too(name: str, tmp_path: Path) -> None:
    folder = write_sums(write_folder(tmp_path), "model.safetensors", name)
    (folder / name).write_text((folder / name).read_text() + "\n")
    with pytest.raises(UserError, match=name):
        load(folder)


def test_a_listed_file_that_is_absent_is_missed_only_if_it_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "README.md").write_text("text")
    (folder / "pytorch_model.bin").write_text("weights")
    write_sums(folder, "model.safetensors", "README.md", "pytorch_model.bin", "generation_config.json")
    (folder / "README.md").unlink()
    (folder / "pytorch_model.bin").unlink()
    load(folder)
    (folder / "generation_config.json").unlink()
    with pytest.raises(UserError, match=r"generation_config\.json: no such file, though SHA256SUMS lists it"):
        load(folder)


def test_reads_the_forms_that_sha256sum_writes(tmp_path: Path) -> None:
    (tmp_path / "in a folder").mkdir()
    path = tmp_path / "in a folder" / "two  words.json"
    path.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest().upper()
    (tmp_path / "SHA256SUMS").write_text(f"{digest} *in a folder/two  words.json\n\n")
    verify(tmp_path)
    path.write_bytes(b"y")
    with pytest.raises(UserError, match="two  words"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abc  config.json", "line 1: not a digest and a name"),
        ("0" * 64, "line 1: not a digest and a name"),
        ("0" * 32 + "  config.json", "line 1: not a digest and a name"),
        ("0" * 64 + "  ../other", r"line 1: \.\./other is outside"),
        ("0" * 64 + "  /etc/passwd", "line 1: /etc/passwd is outside"),
    ],
)
def test_refuses_a_list_that_it_cannot_follow(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        verify(tmp_path)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="SHA256SUMS: cannot be read"):
        verify(tmp_path)


def test_one_file_beside_a_list(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"x")
    write_sums(tmp_path, "a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"y")
    verify_file(tmp_path / "b.gguf")
    with pytest.raises(UserError, match=r"a\.gguf: its content is not what SHA256SUMS says"):
        verify_file(tmp_path / "a.gguf")
