"""A model as the stages pass it around: parameters, what was trained on top of them, and the tokenizer."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from podium.models.config import NetworkConfig
from podium.models.lora import LoraSpec
from podium.models.precision import in_compute_type

if TYPE_CHECKING:
    from podium.data.tokenizer import Tokenizer

Tree = Any
Role = Literal["policy", "reward", "critic"]
ReadAt = Literal["end", "last"]
ROLES: tuple[Role, ...] = ("policy", "reward", "critic")


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Weights with everything that is needed to run, save and export them.

    adapter with lora, and head, are None where the model has none. A reward is gain * raw + bias, where raw is read
    behind the response's end; read_at: one without an end is read as if it ended there, or at its last token.
    base and base_digest name the checkpoint that `params` came from; an adapter is only good on top of that one.
    metadata: JSON-able; "generation_config" holds the content of the source's generation_config.json.
    """

    config: NetworkConfig
    params: Tree
    tokenizer: "Tokenizer"
    role: Role = "policy"
    lora: LoraSpec | None = None
    adapter: Tree | None = None
    head: Tree | None = None
    gain: float = 1.0
    bias: float = 0.0
    read_at: ReadAt = "end"
    base: str = ""
    base_digest: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def frozen(self) -> "Model":
        """Give the model with its weights in the type it computes in, for use without training."""
        params, adapter = (in_compute_type(tree, self.config.dtype) for tree in (self.params, self.adapter))
        return self.replace(params=params, adapter=adapter)

    def replace(self, **changes: Any) -> "Model":
        return dataclasses.replace(self, **changes)
