"""Published networks whose sizes the measurements take; weights are random or absent."""

from podium.models.config import TransformerConfig

LLAMA_2_7B = TransformerConfig(
    vocab_size=32000,
    embed=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    mlp=11008,
    max_position=4096,
    rope_theta=1e4,
    norm_eps=1e-5,
    tie_embeddings=False,
)
LLAMA_32_1B = TransformerConfig(
    vocab_size=128256,
    embed=2048,
    layers=16,
    heads=32,
    kv_heads=8,
    head_dim=64,
    mlp=8192,
    max_position=8192,
    rope_theta=5e5,
    norm_eps=1e-5,
    tie_embeddings=True,
)
