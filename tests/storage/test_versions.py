"""The version of what lies behind a URI: another one whenever the content is, and no other reason."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import fsspec
import pytest

from podium.config import MODEL_FILES
from podium.errors import UserError
from podium.storage import hub, remote


@pytest.fixture
def store() -> Iterator[Any]:
    """Return an empty store behind memory:// URIs."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_file_written_again_has_another_version(store: Any) -> None:
    store.pipe("/bucket/a.jsonl", b"one")
    before = remote.version_of("memory://bucket/a.jsonl")
    assert remote.version_of("memory://bucket/a.jsonl") == before
    store.pipe("/bucket/a.jsonl", b"two")
    assert remote.version_of("memory://bucket/a.jsonl") != before


def test_a_pattern_stands_for_names_and_contents_of_its_files(store: Any) -> None:
    store.pipe({"/bucket/a.jsonl": b"one", "/bucket/b.jsonl": b"two", "/bucket/notes.txt": b""})
    seen = {remote.version_of("memory://bucket/*.jsonl")}
    store.pipe("/bucket/notes.txt", b"other")
    assert remote.version_of("memory://bucket/*.jsonl") in seen
    for change in (lambda: store.pipe("/bucket/c.jsonl", b"more"), lambda: store.rm("/bucket/a.jsonl")):
        change()
        now = remote.version_of("memory://bucket/*.jsonl")
        assert now not in seen
        seen.add(now)


def test_a_folder_stands_for_the_files_that_are_read_of_it(store: Any) -> None:
    store.pipe({"/bucket/m/config.json": b"{}", "/bucket/m/deep/model.safetensors": b"w", "/bucket/m/README.md": b""})
    before = remote.version_of("memory://bucket/m", MODEL_FILES)
    store.pipe("/bucket/m/README.md", b"better words")
    assert remote.version_of("memory://bucket/m", MODEL_FILES) == before
    store.pipe("/bucket/m/deep/model.safetensors", b"v")
    assert remote.version_of("memory://bucket/m", MODEL_FILES) != before


class Store:
    """A store that describes one file and holds its content."""

    def __init__(self, content: bytes, **info: Any) -> None:
        self.content, self.information = content, info

    def invalidate_cache(self) -> None:
        pass

    def find(self, path: str, detail: bool) -> dict[str, Any]:
        return {path: {"name": path, "type": "file", "size": 3, **self.information}}

    def cat_file(self, path: str) -> bytes:
        assert not self.information, "the store says what is in the file: nobody has to read it"
        return self.content


def describing(store: Store, uri: str) -> tuple[Store, str]:
    return store, "bucket/file"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"ETag": '"a"', "LastModified": 1}, {"ETag": '"a"', "LastModified": 2}, True),
        ({"ETag": '"a"'}, {"ETag": '"b"'}, False),
        # Google's etags change with a label.
        ({"crc32c": "x", "etag": "a"}, {"crc32c": "x", "etag": "b"}, True),
        ({"crc32c": "x", "etag": "a"}, {"crc32c": "y", "etag": "a"}, False),
        ({"generation": "1"}, {"generation": "2"}, False),
        ({"mtime": 1.5}, {"mtime": 2.5}, False),
        ({"ETag": '"a"', "size": 3}, {"ETag": '"a"', "size": 4}, False),
        ({}, {}, False),
    ],
)
def test_each_store_is_believed_what_it_says_of_content(
    before: dict[str, Any], after: dict[str, Any], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = []
    for content, info in ((b"one", before), (b"two", after)):
        monkeypatch.setattr(remote, "_open", partial(describing, Store(content, **info)))
        versions.append(remote.version_of("s3://bucket/file"))
    assert (versions[0] == versions[1]) is same


def test_a_store_without_marks_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_open", partial(describing, Store(b"one")))
    assert remote.version_of("s3://bucket/file") == remote.version_of("s3://bucket/file")


def test_nothing_there_is_told_from_a_store_that_does_not_answer(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("memory://bucket/absent", "memory://bucket/*.jsonl"):
        with pytest.raises(UserError, match="there is nothing at") as caught:
            remote.version_of(uri)
        assert not isinstance(caught.value, remote.Unreachable)

    def refuse(self: Any, path: str, **options: Any) -> Any:
        raise PermissionError("403")

    monkeypatch.setattr(type(store), "find", refuse)
    with pytest.raises(remote.Unreachable, match=r"memory://bucket/a cannot be reached \(PermissionError: 403\)"):
        remote.version_of("memory://bucket/a")


def test_the_hub_is_out_of_reach_without_a_network() -> None:
    with pytest.raises(remote.Unreachable, match="model 'some/model': the Hugging Face Hub does not say its commit"):
        hub.commit_of("some/model", None)


def test_only_a_whole_commit_is_fixed() -> None:
    assert hub.is_commit("0123456789abcdef" * 2 + "01234567")
    assert not any(map(hub.is_commit, (None, "main", "01234567")))
