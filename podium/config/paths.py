"""What the path of a data file may be: a file on this machine, a pattern of * and ?, or an address of a known store."""

import glob
import os
import re

# What fsspec is asked for. It knows many more; some fetch from anywhere, some run what an address names.
SCHEMES = ("file", "gs", "gcs", "s3", "s3a", "hf")
_FILE = "file://"
# What stands before :// in an address; a path may come before that only by mistake.
_SCHEME = re.compile(r"(.*?)://", re.DOTALL)
# The version of an object follows a ? too.
_MAGIC = re.compile(r"\*|\?(?!versionId=)")


def is_remote(path: str) -> bool:
    """Tell whether a path is an address of a store, not a file of this machine."""
    return "://" in path and not path.lower().startswith(_FILE)


def local(path: str) -> str:
    """Return a path on this machine without file://."""
    return path[len(_FILE) :] if path.lower().startswith(_FILE) else path


def address_fault(path: str, also: tuple[str, ...] = ()) -> str | None:
    """Return what is wrong with an address, and what to write instead; None for a path, a known store, and `also`.

    fsspec reads :: as one address within another.
    """
    result = _SCHEME.match(path)
    if result is None:
        return None
    scheme = result.group(1)
    if "::" in path:
        head = f"{path.partition('::')[0]}::"
    elif scheme in (*SCHEMES, *also) or scheme.lower() == "file":
        return None
    else:
        head = f"{scheme}://"
    return f"addresses of {head} are not read; write a path on this machine, or a gs://, s3:// or hf:// address"


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
    if is_remote(path) or os.path.exists(here) or not is_pattern(here):
        return [here] if os.path.isfile(here) else []
    return sorted(entry for entry in glob.glob(glob_pattern(here), recursive=True) if os.path.isfile(entry))
