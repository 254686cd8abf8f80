"""What a network is made of; `families.config_json` translates from and to `config.json`."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

from podium.ops.choices import Activation, Implementation, Kept

# How prompts and responses are laid out in packed rows: see `packing.py`.
Packing = Literal["joined", "apart", "whole"]


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


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Sizes and options of the blocks of a stack; hashable, static under jit.

    attention_bias: q, k and v have a bias; output_bias: o has one (Llama: both or none, Qwen2: q, k and v only).
    activation with gated: act(gate(x)) * up(x) (Shazeer 2020), without: act(up(x)).
    norm: "rms", or "layer" for a layer norm without bias (PaLM). unit_offset: a norm's scale is stored as its distance
    from 1 and multiplied in float32 before the cast (Gemma). sandwich_norms: a norm behind attention and MLP too,
    before they are added (Gemma 2). parallel_block: x + attention(norm(x)) + mlp(norm(x)), with one norm (PaLM).
    qk_norm: an RMS norm over each query and key head (Qwen 3, Gemma 3).
    rope_interleaved: pairs of neighbouring dimensions are rotated in place of halves (Cohere).
    query_scale: what scores are multiplied by; None is head_dim^-0.5. attention_softcap: scores become
    cap * tanh(score / cap) (Gemma 2).
    dtype: what is computed in. implementation: whose variants of the operations are used; remat: what the backward pass
    keeps of a layer; share_prompts: the responses to a prompt share it in packed rows, where the network can. None of
    the three changes a formula.
    """

    vocab_size: int
    embed: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    norm_eps: float
    tie_embeddings: bool
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    activation: Activation = "silu"
    gated: bool = True
    norm: Literal["rms", "layer"] = "rms"
    unit_offset: bool = False
    sandwich_norms: bool = False
    parallel_block: bool = False
    qk_norm: bool = False
    rope_interleaved: bool = False
    query_scale: float | None = None
    attention_softcap: float | None = None
    logits_scale: float = 1.0
    dtype: str = "float32"
    implementation: Implementation = "auto"
    remat: Kept = "none"
    share_prompts: bool = True

    def replace(self, **changes: object) -> Self:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # fields are checked by the constructor

    @property
    def score_scale(self) -> float:
        """What attention scores are multiplied by."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(BlockConfig):
    """A decoder-only transformer: Llama, Mistral, Qwen, Gemma, and the block of PaLM.

    sliding_layers: per layer, whether a token sees the last `sliding_window` tokens alone, itself included; empty where
    no layer does. local_rope_theta: theta of those layers, which then have no scaling; None: that of the others.
    embedding_scale: what embeddings are multiplied by. logits_softcap, logits_scale: of the output.
    family: the `model_type` of the files this model came from and is exported as; it changes no arithmetic.
    """

    layers: int
    max_position: int
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] = ()
    local_rope_theta: float | None = None
    embedding_scale: float = 1.0
    logits_softcap: float | None = None
    family: str = "llama"

    @property
    def packing(self) -> Packing:
        return "joined" if self.share_prompts else "whole"

    @property
    def lead(self) -> tuple[int, ...]:
        """Tokens that the network reads before a response; none, because the prompt's last token predicts the first."""
        return ()


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(BlockConfig):
    """An encoder-decoder transformer of the T5 family (Raffel et al. 2020, arXiv 1910.10683; T5 1.1, FLAN-T5).

    Attention has a learnt bias per head and bucket of relative distance, the same in all layers of a stack, and no
    other sense of position. position_buckets, max_distance: T5's relative_attention_num_buckets and _max_distance.
    start_id: the token that the decoder reads first. logits_scale is embed^-0.5 for the tied head of T5 1.0.
    encoder_only: a reward model that reads prompt and response with the encoder and has no decoder.
    """

    encoder_layers: int
    decoder_layers: int
    position_buckets: int = 32
    max_distance: int = 128
    start_id: int = 0
    encoder_only: bool = False
    family: str = "t5"

    @property
    def layers(self) -> int:
        """Layers of the longer stack."""
        return self.encoder_layers if self.encoder_only else max(self.encoder_layers, self.decoder_layers)

    @property
    def max_position(self) -> None:
        """Relative positions have no end."""
        return None

    @property
    def packing(self) -> Packing:
        return "whole" if self.encoder_only else "apart"

    @property
    def lead(self) -> tuple[int, ...]:
        return () if self.encoder_only else (self.start_id,)


NetworkConfig = TransformerConfig | EncoderDecoderConfig
