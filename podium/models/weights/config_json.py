"""Translate `config.json` of the Llama family to `TransformerConfig` and back. What is not supported is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.errors import UserError
from podium.models.config import RopeScaling, TransformerConfig

FAMILIES = ("llama", "mistral", "qwen2")
_ARCHITECTURE_NAMES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}

# What transformers assumes for a key that config.json leaves out, where the families differ or no size is at stake.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "sliding_window": None},
    "mistral": {"max_position_embeddings": 131072, "sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {"max_position_embeddings": 32768, "sliding_window": None, "num_key_value_heads": 32},
}

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_OPTIONS = (
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "hidden_act",
    "pretraining_tp",
    "sliding_window",
    "use_sliding_window",
    "layer_types",
    "reward_bias",
)
# Keys that change neither the network nor its weights. Dropout is off everywhere by design.
_INERT = (
    "model_type",
    "architectures",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_window_layers",
    "is_llama_config",
    "rope_interleaved",
    "transformers.js_config",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "unsloth_version",
    "chunk_size_feed_forward",
    "tokenizer_class",
    "prefix",
    # Older releases of transformers dumped their generation defaults into config.json.
    "max_length",
    "min_length",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "repetition_penalty",
    "length_penalty",
    "diversity_penalty",
    "encoder_no_repeat_ngram_size",
    "no_repeat_ngram_size",
)
_KNOWN = frozenset((*_SIZES, *_OPTIONS, *_INERT))

_ROPE_FIELDS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}
        | {"mscale", "mscale_all_dim", "truncate"}
    ),
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises UserError that names the file when it is absent, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model folder has {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, not an object; fetch the file again")
    return value


def parse_config(raw: Mapping[str, Any], source: str, *, dtype: str = "float32") -> TransformerConfig:
    """Translate the content of config.json; `source` names it in errors. Raises UserError naming the option."""
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{source}: model_type {family!r} is not supported; use a model of {', '.join(FAMILIES)}")
    _refuse_unsupported(raw, family, source)
    missing = [key for key in _SIZES if not isinstance(raw.get(key), int) or raw[key] < 1]
    if missing:
        raise UserError(f"{source}: {missing[0]} is {raw.get(missing[0])!r}; write a positive whole number")
    option = {**_DEFAULTS[family], **{key: value for key, value in raw.items() if value is not None}}
    heads = raw["num_attention_heads"]
    bias = family == "qwen2" or bool(option.get("attention_bias", False))
    theta, scaling = _rope(raw, option["max_position_embeddings"], source)
    config = TransformerConfig(
        vocab_size=raw["vocab_size"],
        embed=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=heads if _is_null(raw, "num_key_value_heads") else option.get("num_key_value_heads", heads),
        head_dim=option.get("head_dim", raw["hidden_size"] // heads),
        mlp=raw["intermediate_size"],
        max_position=option["max_position_embeddings"],
        rope_theta=theta,
        norm_eps=float(option.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(option.get("tie_word_embeddings", False)),
        attention_bias=bias,
        output_bias=bias and family != "qwen2",
        mlp_bias=bool(option.get("mlp_bias", False)),
        rope_scaling=scaling,
        dtype=dtype,
        family=family,
    )
    if heads % config.kv_heads or config.head_dim % 2:
        raise UserError(
            f"{source}: {heads} heads, {config.kv_heads} key/value heads, head_dim {config.head_dim}; "
            "num_attention_heads must be a multiple of num_key_value_heads and head_dim even"
        )
    return config


def _is_null(raw: Mapping[str, Any], key: str) -> bool:
    return key in raw and raw[key] is None


def _refuse_unsupported(raw: Mapping[str, Any], family: str, source: str) -> None:
    """Raise UserError for the first option whose value the network here would not follow."""

    def refuse(key: str, instead: str) -> None:
        raise UserError(f"{source}: {key}={raw.get(key)!r} is not supported; {instead}")

    for key, value in raw.items():
        # An absent, null, zero or false option asks for nothing.
        if key not in _KNOWN and not key.startswith("_") and value:
            refuse(key, "remove it if it does not change the network, else use another model")
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        refuse("hidden_act", "use a model with silu")
    if raw.get("pretraining_tp", 1) not in (None, 1):
        refuse("pretraining_tp", "write 1: it only changes the order of sums")
    switch = {"llama": "sliding_window", "qwen2": "use_sliding_window"}.get(family)
    if switch and raw.get(switch):
        refuse(switch, "use a model with full attention")
    window = raw.get("sliding_window", _DEFAULTS[family]["sliding_window"])
    positions = raw.get("max_position_embeddings", _DEFAULTS[family]["max_position_embeddings"])
    if family == "mistral" and window is not None and window < positions:
        raise UserError(
            f"{source}: sliding_window={window} (4096 where it is left out) is not supported; "
            "use a model with full attention, whose config.json says null"
        )
    if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
        refuse("layer_types", "use a model with full_attention in every layer")
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key) and family != "llama":
            refuse(key, f"{family} has no such option; remove it")


def _rope(raw: Mapping[str, Any], max_position: int, source: str) -> tuple[float, RopeScaling | None]:
    """Read theta and scaling from the newer `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    given = dict(raw.get("rope_scaling") or raw.get("rope_parameters") or {})
    theta = float(given.pop("rope_theta", None) or raw.get("rope_theta") or 10000.0)
    old_kind = given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    partial = given.pop("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise UserError(f"{source}: partial_rotary_factor={partial} is not supported; use a model with 1.0")
    if kind not in _ROPE_FIELDS:
        raise UserError(f"{source}: rope_type {kind!r} is not supported; use a model with {', '.join(_ROPE_FIELDS)}")
    if kind == "default":
        return theta, None
    given = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(given) - _ROPE_FIELDS[kind])
    if unknown:
        raise UserError(f"{source}: rope option {unknown[0]}={given[unknown[0]]!r} is none of {kind}; remove it")
    required = {"factor"} | ({"low_freq_factor", "high_freq_factor"} if kind == "llama3" else set())
    absent = sorted(required - set(given))
    if absent:
        raise UserError(f"{source}: rope_type {kind} needs {absent[0]}; write it beside rope_type")
    original = given.pop("original_max_position_embeddings", max_position)
    # A value beside the rope options wins over one among them, as in transformers.
    original = raw.get("original_max_position_embeddings") or original
    return theta, RopeScaling(kind=kind, original_max_position=int(original), **given)


def config_json(config: TransformerConfig, *, tokens: Mapping[str, Any], head: bool, dtype: str) -> dict[str, Any]:
    """Give the content of config.json, with rope options in the form that old and new transformers read.

    tokens: bos_token_id, eos_token_id, pad_token_id; head: a one-label sequence classifier instead of a language model.
    """
    kind = "ForSequenceClassification" if head else "ForCausalLM"
    content: dict[str, Any] = {
        "architectures": [_ARCHITECTURE_NAMES[config.family] + kind],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_json(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
        **tokens,
    }
    if config.family == "llama":
        content |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    if config.family == "mistral":
        content["sliding_window"] = None
    if config.family == "qwen2":
        content["use_sliding_window"] = False
    if head:
        content |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    return content


def _rope_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    values = {"original_max_position_embeddings": scaling.original_max_position, **vars(scaling)}
    kept = {key: values[key] for key in sorted(_ROPE_FIELDS[scaling.kind]) if values[key] is not None}
    return {"rope_type": scaling.kind, **kept}
