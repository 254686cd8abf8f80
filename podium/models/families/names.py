"""What transformers calls the tensors and modules of a network, and what files may hold beside them."""

from abc import ABC, abstractmethod
from typing import ClassVar

Path = tuple[str, ...]

# PEFT wraps the model twice and keeps both wrappers' names.
PEFT_PREFIX = "base_model.model."
LM_HEAD = "lm_head.weight"
SCORE = "score.weight"  # the head of a sequence classifier
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}


class Names(ABC):
    """The names of one network: each family has its own, or those of its kind.

    layers_pattern: where PEFT finds a layer's number in a module's name, None where it is the only number there.
    """

    layers_pattern: ClassVar[str | None] = None

    @abstractmethod
    def tensor(self, path: Path) -> str:
        """Name the tensor of a leaf of the parameter tree; in a stack of blocks with {} for the layer's number."""

    @abstractmethod
    def modules(self) -> dict[str, str]:
        """Name the projections of a block as transformers does, those alone that this network has."""

    def aliases(self, name: str) -> tuple[str, ...]:
        """List under which names files hold a tensor; where one has it twice, both hold the same."""
        return (name,)

    @abstractmethod
    def is_left_out(self, name: str) -> bool:
        """Say whether a tensor is left out on purpose: it belongs to no part that this network has by design."""


def block_name(prefix: str, modules: list[str], leaf: str) -> str:
    """Join the name of a leaf of a block; that of an adapter has the prefix of PEFT too."""
    peft = PEFT_PREFIX if leaf.startswith("lora_") else ""
    return peft + ".".join([prefix, *modules, LEAVES[leaf]])
