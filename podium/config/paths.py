"""What the path of a data file may be: a file on this machine, a pattern of * and ?, or an address of a known store."""

import glob
import os
import re

# What fsspec is asked for. It knows many more, some of which run code or reach into the network from inside an address.
SCHEMES = ("file", "gs", "gcs", "s3", "s3a", "hf")
_ADDRESS = re.compile(r"([^/]*?)://")
# An object's version follows a ? too.
_MAGIC = re.compile(r"\*|\?(?!versionId=)")


def is_remote(path: str) -> bool:
    """Tell whether a path is an address of a store, not a file of this machine."""
    return "://" in path and not path.startswith("file://")


def local(path: str) -> str:
    """Return a path on this machine without file://."""
    return path.removeprefix("file://")


def address_fault(path: str) -> str | None:
    """Return what is wrong with an address, and what to write instead; None for a path and for a known store."""
    if "://" not in path:
        return None
    found = _ADDRESS.match(path)
    scheme = found.group(1) if found else path.partition("://")[0]
    if scheme not in SCHEMES or "::" in path:
        head = f"{path.partition('::')[0]}::" if "::" in path else f"{scheme}://"
        return f"addresses of {head} are not read; copy the file here, or write a gs://, s3:// or hf:// address"
    return None


def is_pattern(path: str) -> bool:
    """Tell whether a path stands for several files: only * and ? do that, brackets belong to a name."""
    return _MAGIC.search(path) is not None


def glob_pattern(path: str) -> str:
    """Return the pattern for glob and fsspec, which read brackets as a set of characters."""
    return path.replace("[", "[[]")


def matches(path: str) -> list[str]:
    """Return the files of this machine that a path or pattern stands for, sorted; folders and what is absent are none.

    A file that has * or ? in its own name is itself.
    """
    here = local(path)
    if os.path.exists(here) or not is_pattern(here):
        return [here] if os.path.isfile(here) else []
    return sorted(entry for entry in glob.glob(glob_pattern(here), recursive=True) if os.path.isfile(entry))
