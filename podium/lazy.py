"""Names of a package that are fetched on first use, so that who wants one does not wait for what another needs."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def attributes(package: str, homes: Mapping[str, str], modules: Collection[str] = ()) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562) for names that live in the modules `homes` gives, as NAME: MODULE.

    `modules` are submodules to be had as attributes. None of the package may have a name of `homes`: importing it would
    put it in the name's place.
    """

    def fetch(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return fetch
