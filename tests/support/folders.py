"""Small model folders, as transformers writes them, that tests may read and spoil."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from podium.models.families.config_json import parse_config
from podium.models.weights.layout import file_shapes, leaves

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
# T5 1.1, of which the decoder is deeper than the encoder and the heads are wider than the width asks for.
T5_CONFIG: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 104,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-6,
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "dropout_rate": 0.1,
    "n_positions": 512,
}
_SIZES = {name: CONFIG[name] for name in CONFIG if name not in ("architectures", "model_type")}
# One of every family, with what sets it apart from the others.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": CONFIG | {"attention_bias": True, "mlp_bias": True},
    "mistral": _SIZES | {"model_type": "mistral", "sliding_window": 5},
    "qwen2": _SIZES | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": _SIZES | {"model_type": "qwen3", "head_dim": 10, "attention_bias": True},
    "gemma": _SIZES | {"model_type": "gemma", "head_dim": 10, "hidden_act": "gelu"},
    "gemma2": _SIZES
    | {"model_type": "gemma2", "head_dim": 10, "hidden_act": None, "query_pre_attn_scalar": 20, "sliding_window": 4},
    "gemma3_text": _SIZES
    | {
        "model_type": "gemma3_text",
        "head_dim": 10,
        "hidden_act": None,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "final_logit_softcapping": 6.0,
    },
    "cohere": {name: value for name, value in _SIZES.items() if name != "rms_norm_eps"}
    | {"model_type": "cohere", "num_key_value_heads": 1, "logit_scale": 0.3},
    "t5 1.0": T5_CONFIG | {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "t5 1.1": T5_CONFIG,
    "mt5": T5_CONFIG | {"model_type": "mt5"},
}
SPECIALS = ("<s>", "</s>", "<pad>")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer of 259 tokens: every byte, then begin, end and padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIALS, strict=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_t5_tokenizer(folder: Path) -> None:
    """Write a tokenizer of 98 tokens as T5's are: pieces of words that begin with ▁, and an end behind every text."""
    letters = [chr(code) for code in range(33, 127)]
    specials = ("<pad>", "</s>", "<unk>")
    vocab = [(token, 0.0) for token in specials] + [("▁", -2.0)] + [(letter, -3.0) for letter in letters]
    tokenizer = Tokenizer(Unigram(vocab, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "eos_token", "unk_token"), specials, strict=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def write_folder(folder: Path, *, seed: int = 0, **options: Any) -> Path:
    """Write a Llama of 2 layers with random weights; options replace those of config.json, None takes one out."""
    config = {key: value for key, value in (CONFIG | options).items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": 257, "temperature": 0.7})
    save_file(random_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder


def write_family_folder(folder: Path, config: dict[str, Any], *, seed: int = 0, dtype: Any = np.float32) -> Path:
    """Write a model of any family with random weights under the names that Podium has for them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    parsed = parse_config(config, str(folder))
    tensors = _draw(file_shapes(leaves(parsed)), seed)
    save_file({name: value.astype(dtype) for name, value in tensors.items()}, folder / "model.safetensors")
    if parsed.lead:
        write_t5_tokenizer(folder)
    else:
        write_tokenizer(folder)
    return folder


def write_t5_folder(folder: Path, *, seed: int = 0, **options: Any) -> Path:
    """Write a T5 with random weights; options replace those of config.json, None takes one out."""
    config = {key: value for key, value in (T5_CONFIG | options).items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": 1, "decoder_start_token_id": 0})
    save_file(random_t5_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    write_t5_tokenizer(folder)
    return folder


def random_t5_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the tensors of a T5 under their Hugging Face names."""
    width, mlp, inner = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    gated = config["feed_forward_proj"].startswith("gated")
    attention = {"q": (inner, width), "k": (inner, width), "v": (inner, width), "o": (width, inner)}
    dense = dict.fromkeys(("wi_0", "wi_1") if gated else ("wi",), (mlp, width)) | {"wo": (width, mlp)}
    shapes: dict[str, tuple[int, ...]] = {"shared": (config["vocab_size"], width)}
    if not config.get("tie_word_embeddings", True):
        shapes["lm_head"] = (config["vocab_size"], width)
    layers = {"encoder": config["num_layers"], "decoder": config.get("num_decoder_layers", config["num_layers"])}
    for stack, count in layers.items():
        parts = [("SelfAttention", attention), ("EncDecAttention", attention), ("DenseReluDense", dense)]
        if stack == "encoder":
            del parts[1]
        bias = (config["relative_attention_num_buckets"], config["num_heads"])
        shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"] = bias
        shapes[f"{stack}.final_layer_norm"] = (width,)
        for layer in range(count):
            for number, (part, matrices) in enumerate(parts):
                prefix = f"{stack}.block.{layer}.layer.{number}"
                shapes[f"{prefix}.layer_norm"] = (width,)
                shapes |= {f"{prefix}.{part}.{name}": shape for name, shape in matrices.items()}
    return _draw({f"{name}.weight": shape for name, shape in shapes.items()}, seed)


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the tensors of a Llama under their Hugging Face names."""
    width, mlp, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim", width // heads)
    queries, keys = heads * head_dim, config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    for layer in range(config["num_hidden_layers"]):
        block = {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "mlp.gate_proj": (mlp, width),
            "mlp.up_proj": (mlp, width),
            "mlp.down_proj": (width, mlp),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return _draw(shapes, seed)


def _draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) * 0.2 + (len(shape) == 1)).astype(np.float32) for name, shape in shapes.items()
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON object in place."""
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def change_tensors(folder: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors of model.safetensors (dots written as double underscores); None takes one out."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
