"""Programs over the devices of several processes: the same one in all, or the one that differs is named.

Processes that run different programs wait in different collectives, or give numbers that nobody asked for. Their
configs, inputs and versions are compared before; what is left are their code, and settings that JAX reads for itself.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax

from podium.parallel import distributed


def alike(name: str, program: Any) -> Callable[..., Any]:
    """Compare a jitted function between processes before it first runs on arguments of each form.

    What is compared is its lowered text, without names of files and lines. With one process, and for arguments that
    one process holds alone, the call is the function's own.

    Raises:
        UserError: From the call, in every process: a process has lowered another program than process 0.
    """
    compared = set()

    @functools.wraps(program)
    def run(*arguments: Any, **named: Any) -> Any:
        if distributed.count() > 1:
            leaves, tree = jax.tree.flatten((arguments, named))
            form = tree, *map(_form, leaves)
            if any(map(_is_shared, leaves)) and form not in compared:
                text: str = program.trace(*arguments, **named).lower().as_text()
                distributed.agree(hashlib.sha256(text.encode()).hexdigest(), functools.partial(_apart, name))
                compared.add(form)
        return program(*arguments, **named)

    return run


def _form(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf


def _is_shared(leaf: Any) -> bool:
    """Tell whether an array lies on devices of several processes: all of them then run what it is given to."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _apart(name: str, first: str, other: str) -> str:
    return (
        f"its program of {name} is another one (SHA-256 of the lowered text {other[:12]} instead of {first[:12]}), "
        "so its code, or a JAX_ variable of its environment, is"
    )
