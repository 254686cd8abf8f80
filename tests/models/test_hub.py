"""Models by URI and by name. The object store is fsspec's in memory; the Hub is never asked."""

from pathlib import Path
from typing import Any

import fsspec
import jax
import pytest

from podium.errors import UserError
from podium.models import LoraSpec, load, save
from podium.models.family import init_adapter
from podium.models.hub import find_folder
from support.folders import write_folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an object store that holds a model, with a cache of its own on this side."""
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.put(str(write_folder(tmp_path / "model")), "/bucket/model", recursive=True)
    files.pipe("/bucket/model/optimizer.bin", b"a pickle")
    yield files
    files.rm("/bucket", recursive=True)


def test_a_uri_is_copied_once_and_again_when_it_changed(store: Any, tmp_path: Path) -> None:
    folder = find_folder("memory://bucket/model", None)
    assert (folder / "config.json").read_bytes() == (tmp_path / "model" / "config.json").read_bytes()
    assert not (folder / "optimizer.bin").exists()
    (folder / "mark").touch()
    assert (find_folder("memory://bucket/model", None) / "mark").exists()
    # As long as before: a size alone would not tell.
    changed = (tmp_path / "model" / "generation_config.json").read_bytes().replace(b"0.7", b"0.6")
    store.pipe("/bucket/model/generation_config.json", changed)
    assert not (find_folder("memory://bucket/model", None) / "mark").exists()
    model = load("memory://bucket/model")
    assert model.base == "memory://bucket/model" and model.metadata["generation_config"]["temperature"] == 0.6


def test_says_what_is_not_at_a_uri(store: Any) -> None:
    with pytest.raises(UserError, match=r"no model folder there \(it has no config\.json\)"):
        load("memory://bucket/elsewhere")
    with pytest.raises(UserError, match=r"nosuch://x: addresses of nosuch:// are not read; write a path"):
        load("nosuch://x")


def test_a_name_is_looked_up_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "snapshot")
    asked = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, "*.bin" in allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = load("somebody/model", revision="abc")
    assert asked == [("somebody/model", "abc", False)]
    assert (model.base, model.metadata["revision"]) == ("somebody/model", "abc")

    # The adapter trained on it finds the same revision again.
    lora = LoraSpec(2, 4.0, ("q_proj",))
    adapter = init_adapter(model.config, lora, jax.random.key(0))
    load(save(model.replace(lora=lora, adapter=adapter), tmp_path / "saved"))
    assert asked[1:] == [("somebody/model", "abc", False)]
