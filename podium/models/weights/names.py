"""What transformers calls the tensors and modules of a network, and what files may hold beside them."""

import re
from collections.abc import Mapping

from podium.models.config import EncoderDecoderConfig, NetworkConfig, TransformerConfig
from podium.models.lora import TARGETS

Path = tuple[str, ...]

# PEFT wraps the model twice and keeps both wrappers' names.
PEFT_PREFIX = "base_model.model."
LM_HEAD = "lm_head.weight"
SCORE = "score.weight"  # the head of a sequence classifier
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}

_DECODER_TOP: Mapping[Path, str] = {
    ("embedder", "table"): "model.embed_tokens.weight",
    ("final_norm", "scale"): "model.norm.weight",
    ("lm_head", "kernel"): LM_HEAD,
}
_LLAMA_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
# The same name for another place: Gemma 2 has a norm behind attention, before it is added.
_SANDWICH_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
_T5_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_T5_ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "down_proj": "wo"}


def tensor_name(config: NetworkConfig, path: Path) -> str:
    """Name the tensor of a leaf of the parameter tree; in a stack of blocks with {} for the layer's number."""
    if isinstance(config, TransformerConfig):
        return _decoder_name(config, path)
    return _t5_name(config, path)


def _decoder_name(config: TransformerConfig, path: Path) -> str:
    if path[0] != "blocks":
        return _DECODER_TOP[path]
    modules = {"attention": "self_attn", **(_SANDWICH_NORMS if config.sandwich_norms else _LLAMA_NORMS)}
    inner = [modules.get(part, part) for part in path[1:-1]]
    return _peft(path) + ".".join(["model.layers.{}", *inner, _LEAVES[path[-1]]])


def _t5_name(config: EncoderDecoderConfig, path: Path) -> str:
    if path[0] == "embedder":
        return "shared.weight"
    if path[0] == "lm_head":
        return LM_HEAD
    stack, part, *inner = path
    if part == "final_norm":
        return f"{stack}.final_layer_norm.weight"
    if part == "position_bias":
        # Stored in the first block and used by all.
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    mlp = "layer.1" if stack == "encoder" else "layer.2"
    modules = {
        "attention": "layer.0.SelfAttention",
        "attention_norm": "layer.0.layer_norm",
        "cross_attention": "layer.1.EncDecAttention",
        "cross_norm": "layer.1.layer_norm",
        "mlp": f"{mlp}.DenseReluDense",
        "mlp_norm": f"{mlp}.layer_norm",
        **module_names(config),
    }
    named = [modules[name] for name in inner[:-1]]
    return _peft(path) + ".".join([f"{stack}.block.{{}}", *named, _LEAVES[path[-1]]])


def _peft(path: Path) -> str:
    return PEFT_PREFIX if path[-1].startswith("lora_") else ""


def module_names(config: NetworkConfig) -> dict[str, str]:
    """Name the projections of a block as transformers does, those alone that this network has."""
    if isinstance(config, EncoderDecoderConfig):
        mlp = {"gate_proj": "wi_0", "up_proj": "wi_1"} if config.gated else {"up_proj": "wi"}
        return _T5_ATTENTION | mlp
    return {name: name for name in TARGETS}


def layers_pattern(config: NetworkConfig) -> str | None:
    """Say where PEFT finds a layer's number in a module's name, where it is not the only number there."""
    return "block" if isinstance(config, EncoderDecoderConfig) else None


def aliases(config: NetworkConfig, name: str) -> tuple[str, ...]:
    """List under which names files hold a tensor; where one has it twice, both hold the same."""
    if isinstance(config, EncoderDecoderConfig):
        return (name, *_T5_EMBEDDINGS) if name == "shared.weight" else (name,)
    if config.family != "gemma3_text":
        return (name,)
    # The text model of a multimodal Gemma 3, as published and as newer transformers write it.
    if name == LM_HEAD:
        return name, f"language_model.{name}"
    return name, f"language_model.{name}", name.replace("model.", "model.language_model.", 1)


_ROTARY = re.compile(r".*rotary_emb\.inv_freq")
_IMAGES = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")
# T5 1.0 was published with a bias that no version of it has ever read.
_UNREAD_BIAS = re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
_DECODER = re.compile(rf"decoder\..*|{re.escape(LM_HEAD)}")


def is_left_out(config: NetworkConfig, name: str) -> bool:
    """Say whether a tensor is left out on purpose: it belongs to no part that this network has by design."""
    if isinstance(config, EncoderDecoderConfig):
        return bool(_UNREAD_BIAS.fullmatch(name) or (config.encoder_only and _DECODER.fullmatch(name)))
    # Old checkpoints carry the rotary frequencies, which config.json determines.
    return bool(_ROTARY.fullmatch(name) or (config.family == "gemma3_text" and _IMAGES.fullmatch(name)))
