"""Compressed files are read up to a limit; files of another kind are named, whatever they are called."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pytest

from podium.data import packed
from podium.data.sources import parse_rows
from podium.errors import UserError

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'
TABLE = b"prompt,note\na,x\nb,y\n"


def arrow_codec(name):
    def compress(content):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, name) as out:
            out.write(content)
        return sink.getvalue().to_pybytes()

    return compress


def zipped(content, name="pairs.jsonl", **more):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, inside in {name: content, **more}.items():
            archive.writestr(zipfile.ZipInfo(entry), inside, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


COMPRESS = {
    "gz": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": arrow_codec("zstd"),
    "lz4": arrow_codec("lz4"),
    "zip": zipped,
}


def prompts(name, content):
    return [row.values["prompt"] for row in parse_rows(name, content)]


def error_of(name, content):
    with pytest.raises(UserError) as error:
        list(parse_rows(name, content))
    assert str(error.value).startswith(f"{name}: ")
    return str(error.value)[len(name) + 2 :]


@pytest.mark.parametrize("kind", COMPRESS)
def test_every_compression_is_read_under_any_name(kind):
    content = COMPRESS[kind](ROWS)
    for name in (f"x.jsonl.{kind}", "x.jsonl", f"x.{kind.upper()}", "artifact", "x.csv"):
        assert prompts(name, content) == ["a", "b"]
    if kind != "zip":
        assert prompts(f"x.csv.{kind}", COMPRESS[kind](TABLE)) == ["a", "b"]


def test_parts_one_after_another_layers_and_names_in_archives():
    for kind in ("gz", "bz2", "xz", "zst"):
        first, second = ROWS.splitlines(keepends=True)
        assert prompts("x.jsonl", COMPRESS[kind](first) + COMPRESS[kind](second)) == ["a", "b"], kind
    assert prompts("x.csv.gz.zst", COMPRESS["zst"](COMPRESS["gz"](TABLE))) == ["a", "b"]
    assert prompts("x.zip", zipped(TABLE, "folder/x.csv", **{"__MACOSX/x": b""})) == ["a", "b"]
    thrice = COMPRESS["gz"](COMPRESS["gz"](COMPRESS["gz"](ROWS)))
    assert error_of("x.gz", thrice) == "is compressed more than 2 times; unpack it"


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_damaged_one_is_named(kind):
    content = COMPRESS[kind](ROWS * 50)
    found = error_of("x.jsonl", content[: len(content) // 2])
    assert found.startswith("is a damaged zip archive" if kind == "zip" else "is compressed with ")
    assert found.endswith("; fetch it again, or unpack it" if kind == "zip" else "; fetch or write it again")


@pytest.mark.parametrize("kind", COMPRESS)
def test_what_unfolds_too_far_is_refused_before_it_fills_the_memory(kind, monkeypatch):
    bomb = COMPRESS[kind](bytes(8 << 20))
    monkeypatch.setattr(packed, "UNFOLD_ALWAYS", 1 << 20)
    monkeypatch.setattr(packed, "UNFOLD_AT_MOST", 3 << 20)
    assert f"{len(bomb)} bytes of " in (found := error_of("x.jsonl", bomb))
    assert "unfold to more than" in found and "unpack it and name what it holds" in found
    monkeypatch.setattr(packed, "UNFOLD_ALWAYS", 9 << 20)
    monkeypatch.setattr(packed, "UNFOLD_AT_MOST", 9 << 20)
    assert packed.unpacked("x", bomb)[1] == bytes(8 << 20)


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.jsonl"), io.BytesIO(b""))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(b"", "xl/workbook.xml"), "is an Excel workbook; save it as CSV (UTF-8)"),
        (zipped(b"", "xl/workbook.xml")[:60], "is an Excel workbook; save it as CSV (UTF-8)"),
        (zipped(b"", "word/document.xml"), "is a Word document"),
        (zipped(b"", "content.xml", mimetype=b""), "is a LibreOffice document; save it as CSV (UTF-8)"),
        (zipped(b"", "a.csv", **{"b.csv": b""}), "is a zip archive of 2 files; unpack it and name them"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "is an Office file of the old kind; save it as CSV (UTF-8)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n",
            "is a Git LFS pointer, not the data; run git lfs pull",
        ),
        (b"../.git/annex/objects/x", "is a git-annex pointer"),
        (b"PARE" + bytes(20) + b"PARE", "is an encrypted Parquet file"),
        (b"ORC" + bytes(20) + b"ORC\x19", "is an ORC file; write Parquet"),
        (b"FEA1" + bytes(20) + b"FEA1", "is a Feather file, version 1; write Parquet"),
        (b"Obj\x01avro.schema", "is an Avro file"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"\x93NUMPY\x01", "is a NumPy array"),
        (b"\x80\x04\x95\x10", "is a Python pickle, which may run code"),
        (b"%PDF-1.7", "is a PDF"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
        (tarred(), "is a tar archive; unpack it and name the files in it"),
        (COMPRESS["gz"](tarred()), "is a tar archive"),
        (b"\n<!DOCTYPE html><html>", "is a web page or XML, not the data"),
        (b"<?xml version='1.0'?>", "is a web page or XML, not the data"),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "artifact"])
def test_files_of_another_kind_are_named(name, content, message):
    assert error_of(name, content).startswith(message)


def test_text_that_only_begins_alike_is_read():
    for start in ("ORCID", "PARENT", "FEA1", "Rar", "BZh9", "7z", "version"):
        (row,) = parse_rows("x.csv", f"{start},prompt\n1,a\n".encode())
        assert row.values == {start: "1", "prompt": "a"}
    assert "is named as an Excel workbook but is none" in error_of("x.xlsx", b"prompt\na\n")
