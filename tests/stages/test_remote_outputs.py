"""Outputs behind URIs: looked at by size and checksum, never mixed with another config's or with foreign files.

The store is fsspec's in memory, with and without the checksums that object stores keep.
"""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from podium.config import STAGE_TABLE
from podium.errors import UserError
from podium.stages.io import Result, StageIO
from podium.stages.runner import run_stage
from podium.storage import remote
from support.small_stage import Stage, config

PREPARE = STAGE_TABLE["prepare"].outputs


@pytest.fixture(params=[False, True], ids=["without sums", "with sums"])
def sums(request: pytest.FixtureRequest) -> bool:
    """Return whether the store keeps MD5 sums, as Google's does."""
    return bool(request.param)


@pytest.fixture
def store(sums: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return an empty store behind memory:// URIs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    find = MemoryFileSystem.find

    def with_sums(self: MemoryFileSystem, path: str, *args: Any, detail: bool = False, **options: Any) -> Any:
        found = find(self, path, *args, detail=True, **options)
        for name in found.keys() & self.store.keys():  # not its folders
            digest = hashlib.md5(self.store[name].getvalue(), usedforsecurity=False).digest()
            found[name]["md5Hash"] = base64.b64encode(digest).decode()
        return found if detail else sorted(found)

    if sums:
        monkeypatch.setattr(MemoryFileSystem, "find", with_sums)
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def run(store: Any, stage: Any, seed: int = 0, **options: Any) -> tuple[bool, list[str]]:
    """Run prepare into bucket/out; return whether it was skipped, and what was said."""
    said: list[str] = []
    io = StageIO({}, {name: f"memory://bucket/out/{name}/" for name in PREPARE})
    return run_stage("prepare", config(seed=seed), io, run=stage, say=said.append, **options)[1], said


def flip(store: Any, path: str) -> None:
    """Change a bit of a file and nothing that a listing shows."""
    content = bytearray(store.cat(path))
    content[0] ^= 1
    created = store.store[path].created
    store.pipe(path, bytes(content))
    store.store[path].created = created


def test_what_is_sound_is_taken_without_reading_it_where_the_store_has_checksums(
    store: Any, sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, read = Stage("prepare"), []
    assert run(store, stage)[0] is False
    digest = remote.digest
    monkeypatch.setattr(remote, "digest", lambda uri: (read.append(uri), digest(uri))[1])
    assert run(store, stage)[0] is True
    assert (len(read) == 0) == sums
    assert not [name for name in store.find("/bucket") if ".work" in name]


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "manifest"])
def test_damage_is_made_again(store: Any, damage: str) -> None:
    stage, path = Stage("prepare"), "/bucket/out/prompts/deep/rows.jsonl"
    run(store, stage)
    before = {name: store.cat(name) for name in store.find("/bucket")}
    if damage == "flip":
        flip(store, path)
    elif damage == "cut":
        store.pipe(path, b"0")
    elif damage == "lose":
        store.rm(path)
    else:
        store.pipe("/bucket/out/prompts/manifest.json", store.cat("/bucket/out/prompts/manifest.json")[:-9])
    skipped, said = run(store, stage)
    assert (skipped, stage.runs) == (False, 2)
    assert damage == "manifest" or "memory://bucket/out/prompts/deep/rows.jsonl" in said[0]
    assert {name: store.cat(name) for name in store.find("/bucket")} == before


def test_a_file_that_did_not_arrive_whole_is_noticed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put = type(store).put_file

    def lossy(self: Any, here: str, there: str, **options: Any) -> None:
        put(self, here, there, **options)
        if there.endswith("prompts/deep/rows.jsonl"):
            self.pipe(there, b"")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put_file", lossy)
        with pytest.raises(UserError, match=r"output prompts: .*rows\.jsonl did not arrive whole; start the same com"):
            run(store, Stage("prepare"))
    assert not store.exists("/bucket/out/prompts/manifest.json")
    assert run(store, Stage("prepare"))[0] is False
    assert run(store, Stage("prepare"))[0] is True


@pytest.mark.parametrize("earlier", ["keep", "replace"])
def test_another_config_never_mixes_with_what_is_there(store: Any, earlier: Any) -> None:
    class More(Stage):
        def __call__(self, settings: Any, io: StageIO) -> Result:
            result = super().__call__(settings, io)
            (io.output("prompts") / "extra").write_text("more")
            return result

    run(store, More("prepare"))
    _, said = run(store, Stage("prepare"), seed=1, earlier=earlier)
    names = sorted(name.removeprefix("/bucket/out/") for name in store.find("/bucket") if "prompts" in name)
    new = ["prompts/deep/rows.jsonl", "prompts/manifest.json"]
    kept = ["prompts.1/deep/rows.jsonl", "prompts.1/extra", "prompts.1/manifest.json"]
    assert names == (new if earlier == "replace" else kept + new)
    assert store.cat("/bucket/out/prompts/deep/rows.jsonl") == b"1\n"
    if earlier == "keep":
        assert "memory://bucket/out/prompts.1" in said[1]
        assert store.cat("/bucket/out/prompts.1/deep/rows.jsonl") == b"0\n"


def test_foreign_files_are_left_alone(store: Any) -> None:
    store.pipe("/bucket/out/prompts/thesis.txt", b"years of work")
    with pytest.raises(UserError, match=r"output prompts: .*bucket/out/prompts holds files that no stage wrote"):
        run(store, Stage("prepare"))
    assert store.find("/bucket") == ["/bucket/out/prompts/thesis.txt"]
    _, said = run(store, Stage("prepare"), earlier="orchestrated")
    assert said == ["kept what was there: memory://bucket/out/prompts.1"]
    assert store.cat("/bucket/out/prompts.1/thesis.txt") == b"years of work"


def test_a_changed_model_in_a_store_is_another_model(store: Any, tmp_path: Path) -> None:
    stage = Stage("prepare")
    # Written again, it is another version where the store keeps no checksum: nothing is written between the first two.
    for content, expected in ((b"{}", False), (None, True), (b"{ }", False)):
        if content is not None:
            store.pipe("/bucket/model/config.json", content)
        # A store of tests, which no config may name.
        plain = config()
        model = plain.model.model_copy(update={"name_or_path": "memory://bucket/model"})
        settings = plain.model_copy(update={"model": model})
        assert run_stage("prepare", settings, StageIO.local(tmp_path / "out"), run=stage)[1] is expected
