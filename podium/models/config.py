"""What a decoder-only transformer is made of; `weights.config_json` translates from and to `config.json`."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context; fields as in Hugging Face's rope_parameters.

    `kind` is "linear", "dynamic", "yarn" or "llama3"; each reads its own fields (see `rope.py`).
    """

    kind: str
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and options of one decoder-only transformer of the Llama family; hashable, static under jit.

    attention_bias: q, k and v have a bias; output_bias: o has one (Llama: both or none, Qwen2: q, k and v only).
    family: the `model_type` of the files this model came from and is exported as; it changes no arithmetic.
    """

    vocab_size: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    max_position: int
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    rope_scaling: RopeScaling | None = None
    dtype: str = "float32"
    family: str = "llama"

    def replace(self, **changes: object) -> "TransformerConfig":
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # fields are checked by the constructor
