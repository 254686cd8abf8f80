"""An object store in memory behind the addresses of real ones: a config names no other kind."""

from typing import Any

import fsspec
import pytest


def in_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every URI mean a file of an empty store in memory, by bucket and name; return the store."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda uri, **options: (store, f"/{uri.partition('://')[2]}"))
    return store


def out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at a URI fail a test."""

    def refuse(uri: str, **options: Any) -> Any:
        raise AssertionError(f"{uri} was asked for")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
