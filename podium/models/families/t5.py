"""T5 1.0, T5 1.1 and FLAN-T5. mT5 shares options and names."""

import re
from collections.abc import Mapping
from typing import Any

from podium.models.config import EncoderDecoderConfig
from podium.models.families.base import Family
from podium.models.families.names import LM_HEAD, Names, Path, block_name
from podium.models.families.options import Options
from podium.ops.choices import Activation

T5_DEFAULTS = {
    "d_kv": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": True,
}
_ACTIVATION_NAMES: Mapping[Activation, str] = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "down_proj": "wo"}
# T5 1.0 was published with a bias that no version of it has ever read.
_UNREAD_BIAS = re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
_DECODER = re.compile(rf"decoder\..*|{re.escape(LM_HEAD)}")


def t5_config(options: Options, dtype: str, *, family: str, scales: bool) -> EncoderDecoderConfig:
    """Read T5 or mT5.

    scales: `tie_word_embeddings` also says that the head is scaled, unless `scale_decoder_outputs` does.
    Whether the head is tied is in the end decided by the weights: see `reading.settle_head`.
    """
    tied, scaled = options.flag("tie_word_embeddings"), options.optional_flag("scale_decoder_outputs")
    scaled = scales and (tied if scaled is None else scaled)
    options.must_be("is_encoder_decoder", True, instead="use a model with encoder and decoder")
    # Two of dropout and initialisation; n_positions is the length it was trained on, which binds nothing here.
    options.passes("dropout_rate", "classifier_dropout", "initializer_factor", "n_positions")
    activation, gated = _feed_forward(options)
    heads, embed, layers = options.size("num_heads"), options.size("d_model"), options.layers("num_layers")
    vocab_size, start_id = options.size("vocab_size"), options.index("decoder_start_token_id")
    if start_id >= vocab_size:
        options.refuse("decoder_start_token_id", f"write the id of a token, below the vocab_size of {vocab_size}")
    buckets, max_distance = (options.size(f"relative_attention_{name}") for name in ("num_buckets", "max_distance"))
    # Half of them are for near positions, one each, and of an encoder's half are for either side.
    if buckets < 4 or max_distance <= buckets // 2:
        options.refuse("relative_attention_num_buckets", "write 4 or more, and a max_distance above half of them")
    config = EncoderDecoderConfig(
        vocab_size=vocab_size,
        embed=embed,
        encoder_layers=layers,
        decoder_layers=layers if options.get("num_decoder_layers") is None else options.layers("num_decoder_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=options.size("d_kv"),
        mlp=options.size("d_ff"),
        norm_eps=options.number("layer_norm_epsilon"),
        tie_embeddings=tied,
        activation=activation,
        gated=gated,
        query_scale=1.0,
        logits_scale=embed**-0.5 if scaled else 1.0,
        position_buckets=buckets,
        max_distance=max_distance,
        start_id=start_id,
        dtype=dtype,
        family=family,
    )
    options.finish()
    return config


def _feed_forward(options: Options) -> tuple[Activation, bool]:
    """Read "relu" or "gated-gelu", which means the tanh form; dense_act_fn and is_gated_act overrule it."""
    written = str(options.get("feed_forward_proj"))
    gate, _, name = written.rpartition("-")
    if gate not in ("", "gated"):
        options.refuse("feed_forward_proj", "write an activation, or gated- and one")
    if options.get("dense_act_fn") is not None:
        activation = options.activation("dense_act_fn")
    elif written == "gated-gelu":
        activation = "gelu_tanh"
    else:
        activation = Options({"feed_forward_proj": name}, options.source, {}).activation("feed_forward_proj")
    overruled = options.optional_flag("is_gated_act")
    return activation, gate == "gated" if overruled is None else overruled


def t5_json(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Give the keys of T5 and mT5."""
    name = _ACTIVATION_NAMES[config.activation]
    # What "gated-gelu" means is the tanh form, for which "gelu_new" stands elsewhere.
    projection = f"gated-{name}".replace("gelu_new", "gelu") if config.gated else name
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.embed,
        "d_kv": config.head_dim,
        "d_ff": config.mlp,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.position_buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": projection,
        "dense_act_fn": name,
        "is_gated_act": config.gated,
        "is_encoder_decoder": True,
        "decoder_start_token_id": config.start_id,
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": config.logits_scale != 1.0,
    }


class T5Names(Names):
    """The names of T5 and mT5: a block has numbered layers, the decoder's one more than the encoder's."""

    layers_pattern = "block"

    def __init__(self, config: EncoderDecoderConfig):
        self._config = config

    def tensor(self, path: Path) -> str:
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
        names = {
            "attention": "layer.0.SelfAttention",
            "attention_norm": "layer.0.layer_norm",
            "cross_attention": "layer.1.EncDecAttention",
            "cross_norm": "layer.1.layer_norm",
            "mlp": f"{mlp}.DenseReluDense",
            "mlp_norm": f"{mlp}.layer_norm",
            **self.modules(),
        }
        return block_name(f"{stack}.block.{{}}", [names[name] for name in inner[:-1]], inner[-1])

    def modules(self) -> dict[str, str]:
        mlp = {"gate_proj": "wi_0", "up_proj": "wi_1"} if self._config.gated else {"up_proj": "wi"}
        return _ATTENTION | mlp

    def aliases(self, name: str) -> tuple[str, ...]:
        return (name, *_EMBEDDINGS) if name == "shared.weight" else (name,)

    def is_left_out(self, name: str) -> bool:
        return bool(_UNREAD_BIAS.fullmatch(name) or (self._config.encoder_only and _DECODER.fullmatch(name)))


def _parse(options: Options, dtype: str) -> EncoderDecoderConfig:
    return t5_config(options, dtype, family="t5", scales=True)


# transformers has no class for a T5 whose head gives one score, as Podium reads it.
FAMILY = Family(
    parse=_parse,
    defaults=T5_DEFAULTS | {"feed_forward_proj": "relu"},
    write=t5_json,
    names=T5Names,
    architecture="T5ForConditionalGeneration",
)
