"""Which commit a name on the Hugging Face Hub stands for now."""

import re

from podium.storage.remote import Unreachable

_COMMIT = re.compile("[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision is a commit itself, which never becomes another."""
    return revision is not None and bool(_COMMIT.fullmatch(revision))


def commit_of(name: str, revision: str | None) -> str:
    """Ask the Hub for the commit that a model repository's revision is at.

    Raises:
        Unreachable: The Hub cannot be asked from here, or does not know the name.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise Unreachable(f"model {name!r}: needs huggingface_hub; write: pip install huggingface_hub") from error
    try:
        return str(HfApi().model_info(name, revision=revision).sha)
    # The client raises errors of its own, of its HTTP library, and OSError.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise Unreachable(f"model {name!r}: the Hugging Face Hub does not say its commit ({reason})") from error
