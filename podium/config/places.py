"""Addresses in a configuration: which are read, and that none holds a secret.

A configuration is kept beside results, in compiled pipelines and in messages. Secrets come from the surroundings (a
profile, a service account), so that no such copy holds one.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from podium.config.paths import address_fault

_URI = re.compile(r"([^/\s]*?)://(.*)", re.DOTALL)
_SIGNED = re.compile(r"[?&;#][^=&\s]*(sign|sig\b|token|secret|password|credential|access_?key|api_?key)[^=&\s]*=", re.I)
_AMBIENT = (
    "holds a secret, which copies of the config would keep; write the address alone and log in outside: a profile or "
    "variables for s3://, gcloud auth application-default login for gs://, hf auth login for hf://"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-fA-F]+)?",
    re.ASCII,
)


def holds_secret(text: str) -> bool:
    """Tell whether a text holds an address with a name and password, an access key, or a signature."""
    match = _URI.search(text)
    if match is None:
        return False
    host = match.group(2).partition("/")[0]
    is_store = match.group(1).endswith(("s3", "gs", "s3a", "gcs", "minio"))
    return "@" in host or (is_store and ":" in host) or _SIGNED.search(match.group(2)) is not None


def mistake_in(address: str, also: tuple[str, ...] = ()) -> str | None:
    """Say what is wrong with a path or URI, without repeating a secret, or return None; `also` are further schemes."""
    if holds_secret(address):
        return _AMBIENT
    if fault := address_fault(address, also):
        return fault
    if address.lower().startswith("file://") and not address[len("file://") :].startswith("/"):
        return "write file:///PATH with the path in full, or the path alone"
    return None


def _location(value: str) -> str:
    _refuse(mistake_in(value))
    return value


def _store(value: str) -> str:
    # minio:// is how Kubeflow Pipelines calls its own store.
    _refuse(mistake_in(value, also=("minio",)))
    return value


def _without_secret(value: str) -> str:
    _refuse(_AMBIENT if holds_secret(value) or "@" in value else None)
    return value


def _image(value: str) -> str:
    _refuse(None if _IMAGE.fullmatch(value) else "is no image reference; write REGISTRY/NAME:TAG or NAME@sha256:DIGEST")
    return value


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise PydanticCustomError("podium", "{reason}", {"reason": reason})


Location = Annotated[str, Field(min_length=1), AfterValidator(_location)]
Store = Annotated[str, AfterValidator(_store)]
Service = Annotated[str, AfterValidator(_without_secret)]
Image = Annotated[str, AfterValidator(_image)]
