"""Data files are found and opened, here and in stores; what is no file, or no known address, is said in a line."""

import os
import socket

import fsspec
import pytest

from podium.data.files import expand, read_content
from podium.errors import UserError
from support.buckets import bucket


def error_of(call, path):
    with pytest.raises(UserError) as error:
        call(str(path))
    return str(error.value)


def test_a_missing_file_and_its_neighbour(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}")
    found = error_of(read_content, tmp_path / "pair.jsonl")
    assert found == f"{tmp_path}/pair.jsonl: no such file; did you mean {tmp_path}/pairs.jsonl?"
    assert error_of(read_content, tmp_path / "nowhere" / "x.jsonl").endswith("no such file; check the path")
    (tmp_path / "link.jsonl").symlink_to("store/blob")
    assert "is a link to store/blob, which is not there" in error_of(read_content, tmp_path / "link.jsonl")


def test_a_folder_is_not_a_file(tmp_path):
    assert error_of(read_content, tmp_path) == f"{tmp_path}: is a folder; name a file in it"
    (tmp_path / "part-0.JSONL").touch()
    assert error_of(read_content, tmp_path).endswith(f"name the files in it: {tmp_path}/*.jsonl")


def test_pipes_sockets_and_devices_are_not_read(tmp_path):
    """Reading them may never end: before, the first of these waited for a writer."""
    os.mkfifo(tmp_path / "rows.jsonl")
    assert "rows.jsonl: is a pipe, not a file" in error_of(read_content, tmp_path / "rows.jsonl")
    place = os.path.relpath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        assert "is a socket, not a file" in error_of(read_content, tmp_path / "socket")
    assert error_of(read_content, "/dev/zero").startswith("/dev/zero: is a device, not a file")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("x" * 5000, "cannot be read (File name too long)"),
        ("f/" * 3000, "cannot be read (File name too long)"),
        ("/dev/null/x.jsonl", "cannot be read (Not a directory)"),
        ("a\0b", "no path holds such characters"),
        ("a\udcff*", "no path holds such characters"),
    ],
)
def test_what_is_no_path(path, reason):
    assert reason in error_of(read_content, path)
    assert error_of(expand, path) if "*" in path else expand(path) == [path]


def test_what_may_not_be_read(tmp_path, monkeypatch):
    """The error is put in place of the operating system's: for root nothing is forbidden."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.jsonl").touch()
    for call in ("pathlib.Path.read_bytes", "pathlib.Path.stat"):
        with monkeypatch.context() as patch:
            patch.setattr(call, refuse)
            assert "cannot be read (Permission denied)" in error_of(read_content, tmp_path / "x.jsonl")
    monkeypatch.setattr("os.listdir", refuse)
    assert "no such file; check the path" in error_of(read_content, tmp_path / "y.jsonl")
    pattern = tmp_path / "locked" / "*.jsonl"
    assert error_of(expand, pattern).endswith(f"check the path: {tmp_path}/locked cannot be listed (Permission denied)")


def test_only_stars_and_question_marks_are_patterns(tmp_path):
    folder = tmp_path / "data [v2]"
    folder.mkdir()
    for name in ("b.jsonl", "a.jsonl", "c.csv", "odd[1].jsonl", "what?.txt"):
        (folder / name).write_text("{}")
    (folder / "d.jsonl").mkdir()
    names = [f"{folder}/{name}" for name in ("a.jsonl", "b.jsonl")]
    assert expand(f"{folder}/?.jsonl") == names
    assert expand(f"{folder}/*.jsonl") == [*names, f"{folder}/odd[1].jsonl"]
    assert expand(f"file://{folder}/?.jsonl") == names
    assert expand(f"{tmp_path}/**/a.jsonl") == names[:1]
    assert expand(f"{folder}/odd[1].jsonl") == [f"{folder}/odd[1].jsonl"]
    assert expand(f"{folder}/what?.txt") == [f"{folder}/what?.txt"]
    assert expand(f"{folder}/[ab].jsonl") == [f"{folder}/[ab].jsonl"]
    assert "no file fits this pattern; check the path" in error_of(expand, f"{folder}/*.parquet")


def test_a_name_that_is_no_text_is_refused_before_it_is_written_into_reports(tmp_path):
    with open(os.fsencode(tmp_path) + b"/part-\xff.jsonl", "wb"):
        assert "part-\\xff.jsonl' is not UTF-8; rename that file" in error_of(expand, tmp_path / "part-*.jsonl")


@pytest.mark.parametrize("scheme", ["gs", "s3", "hf"])
def test_stores_are_read_through_fsspec(monkeypatch, scheme):
    store = bucket(monkeypatch, scheme)
    for name in ("a", "b", "c [1]"):
        store.pipe(f"/data [v2]/{name}.jsonl", name.encode())
    store.pipe("/data [v2]/folder.jsonl/x", b"")
    root = f"{scheme}://data [v2]"
    assert read_content(f"{root}/a.jsonl") == b"a"
    assert expand(f"{root}/*.jsonl") == [f"{root}/a.jsonl", f"{root}/b.jsonl", f"{root}/c [1].jsonl"]
    assert expand(f"{root}/?.jsonl") == [f"{root}/a.jsonl", f"{root}/b.jsonl"]
    assert expand(f"{root}/c [1].jsonl") == [f"{root}/c [1].jsonl"]
    assert expand(f"{root}/a.jsonl?versionId=7") == [f"{root}/a.jsonl?versionId=7"]
    assert "no.jsonl: cannot be read" in error_of(read_content, f"{root}/no.jsonl")
    assert "no file fits this pattern" in error_of(expand, f"{root}/*.csv")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("http://h.example/x.jsonl", "http://"),
        ("https://h.example/*.jsonl", "https://"),
        ("ftp://h.example/x.jsonl", "ftp://"),
        ("memory://x.jsonl", "memory://"),
        ("HTTP://h.example/x.jsonl", "HTTP://"),
        ("://x", "://"),
        ("zip://x.jsonl::http://h.example/y.zip", "zip://x.jsonl::"),
        ("simplecache::gs://bucket/x.jsonl", "simplecache::"),
        ("gs://bucket/x.jsonl::http://h.example/y", "gs://bucket/x.jsonl::"),
        ("folder/http://h.example/x", "folder/http://"),
    ],
)
def test_other_addresses_are_refused_by_name_and_never_asked(monkeypatch, path, named):
    def ask(*_, **__):
        raise AssertionError("fsspec was asked")

    monkeypatch.setattr(fsspec.core, "url_to_fs", ask)
    for call in (expand, read_content):
        assert error_of(call, path).startswith(f"{path}: addresses of {named} are not read; ")
