"""What all families of decoder-only models have alike: options, which layers see a window alone, tensor names."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from podium.config.model import ALL_PROJECTIONS
from podium.errors import UserError
from podium.models.config import TransformerConfig
from podium.models.families.names import LM_HEAD, Names, Path, block_name
from podium.models.families.options import Options
from podium.models.families.rope_options import Rope, rope_json
from podium.ops.choices import Activation

_FULL, _SLIDING = "full_attention", "sliding_attention"
ACTIVATION_NAMES: Mapping[Activation, str] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
}

_TOP: Mapping[Path, str] = {
    ("embedder", "table"): "model.embed_tokens.weight",
    ("final_norm", "scale"): "model.norm.weight",
    ("lm_head", "kernel"): LM_HEAD,
}
_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
# The same name for another place: Gemma 2 has a norm behind attention, before it is added.
_SANDWICH_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
# Old checkpoints carry the rotary frequencies, which config.json determines.
_ROTARY = re.compile(r".*rotary_emb\.inv_freq")


def decoder_config(options: Options, rope: Rope, **fields: Any) -> TransformerConfig:
    """Read the sizes that all families share; `fields` are the others. Refuses every option that was not read."""
    heads, embed = options.size("num_attention_heads"), options.size("hidden_size")
    kv_heads = options.optional_size("num_key_value_heads") or heads
    head_dim = options.optional_size("head_dim") or embed // heads
    if heads % kv_heads or head_dim % 2 or not head_dim:
        raise UserError(
            f"{options.source}: {heads} heads, {kv_heads} key/value heads, head_dim {head_dim}; "
            "num_attention_heads must be a multiple of num_key_value_heads and head_dim even"
        )
    config = TransformerConfig(
        vocab_size=options.size("vocab_size"),
        embed=embed,
        layers=options.layers("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=options.size("intermediate_size"),
        max_position=options.size("max_position_embeddings"),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        tie_embeddings=options.flag("tie_word_embeddings"),
        **fields,
    )
    options.finish()
    return config


def sliding_fields(options: Options, window: int | None, slides: Callable[[int], bool]) -> dict[str, Any]:
    """Read `layer_types`, or let `slides` say it of each layer; without a window no layer may be a sliding one."""
    layers = options.layers("num_hidden_layers")
    types = options.words("layer_types")
    if types is None:
        types = [_SLIDING if window is not None and slides(layer) else _FULL for layer in range(layers)]
    if len(types) != layers or set(types) - {_FULL, _SLIDING}:
        options.refuse("layer_types", f"write {_FULL} or {_SLIDING} for each of {layers} layers")
    if _SLIDING not in types:
        return {}
    if window is None:
        options.refuse("layer_types", f"write sliding_window, or {_FULL} for every layer")
    return {"sliding_window": window, "sliding_layers": tuple(kind == _SLIDING for kind in types)}


def full_attention_only(options: Options) -> None:
    """Refuse layers of another kind than full attention."""
    if any(kind != _FULL for kind in options.words("layer_types") or ()):
        options.refuse("layer_types", f"use a model with {_FULL} in every layer")


def layer_types(config: TransformerConfig) -> list[str]:
    sliding = config.sliding_layers or (False,) * config.layers
    return [_SLIDING if slides else _FULL for slides in sliding]


def decoder_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys that all families share."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_json(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
    }


class DecoderNames(Names):
    """The names of a decoder-only network, which Llama was the first to have."""

    def __init__(self, config: TransformerConfig):
        self._inner = {"attention": "self_attn", **(_SANDWICH_NORMS if config.sandwich_norms else _NORMS)}

    def tensor(self, path: Path) -> str:
        if path[0] != "blocks":
            return _TOP[path]
        return block_name("model.layers.{}", [self._inner.get(part, part) for part in path[1:-1]], path[-1])

    def modules(self) -> dict[str, str]:
        return {name: name for name in ALL_PROJECTIONS}

    def is_left_out(self, name: str) -> bool:
        return _ROTARY.fullmatch(name) is not None
