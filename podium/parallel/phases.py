"""The parts of a training step by name: what a profile shows, and what `podium plan` counts and times apart.

The names are scopes: they reach the equations of a traced program and the metadata of a compiled one, and change no
operation of either.
"""

import re
from contextlib import AbstractContextManager
from typing import Any, Literal

import jax

# prefill, decode: of the answers; reward: scores of them; reference: its log-probabilities; old: log-probabilities and
# values before the updates; update: forward and backward passes and the optimizer, which is all of sft and reward
# training.
Phase = Literal["prefill", "decode", "reward", "reference", "old", "update"]
PHASES: tuple[Phase, ...] = ("prefill", "decode", "reward", "reference", "old", "update")

_SCOPE = re.compile(rf"phase\.({'|'.join(PHASES)})\b")


def phase(name: Phase) -> AbstractContextManager[Any]:
    """Trace what follows as a part of the step."""
    return jax.named_scope(f"phase.{name}")


def phase_in(scopes: str) -> str | None:
    """Return the innermost part that a path of scopes names, None where it names none."""
    found = _SCOPE.findall(scopes)
    return found[-1] if found else None
