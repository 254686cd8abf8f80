"""Podium aligns a language model with human preferences.

From Python: load, generate, score, train_reward_model, train_ppo, export and the functions of podium.losses
(docs/python.md). They are fetched on first use: `import podium` loads nothing heavy.
"""

from typing import TYPE_CHECKING

from podium import lazy
from podium.version import __version__

if TYPE_CHECKING:
    from podium import losses
    from podium.api import score, train_ppo, train_reward_model
    from podium.generation import generate
    from podium.models import export, load

__all__ = [
    "__version__",
    "export",
    "generate",
    "load",
    "losses",
    "score",
    "train_ppo",
    "train_reward_model",
]

__getattr__ = lazy.attributes(
    __name__,
    {
        "export": "models",
        "generate": "generation",
        "load": "models",
        "score": "api",
        "train_ppo": "api",
        "train_reward_model": "api",
    },
    modules=("losses",),
)
