"""Object stores in this process's memory, behind the addresses of real ones."""

from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


def bucket(monkeypatch: pytest.MonkeyPatch, scheme: str) -> Any:
    """Return an empty store that answers to `scheme`:// until the test ends."""

    class Bucket(MemoryFileSystem):
        protocol = scheme
        cachable = False
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.removeprefix(f"{scheme}://")))

    monkeypatch.setitem(_registry, scheme, Bucket)
    return Bucket()
