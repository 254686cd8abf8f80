"""Meta's own form of a Llama: params.json and consolidated.NN.pth, which share every matrix between them."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from podium.convert.rotary_rows import halves_from_pairs
from podium.convert.torch_file import as_array, dtype_of, read_state_dict
from podium.errors import UserError
from podium.models.config import TransformerConfig
from podium.models.families.options import Options
from podium.models.weights.json_file import read_json
from podium.models.weights.layout import file_shapes, leaves
from podium.models.weights.writing import Tensor

PARAMS = "params.json"
SHARDS = "consolidated.*.pth"
_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}
_LAYER = re.compile(r"model\.(layers\.\d+\.)(.+)")
# The dimension along which the files share a matrix; each holds the whole of what is not named here.
_CUT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}
_EMBEDDING, _GATE = "tok_embeddings.weight", "layers.0.feed_forward.w1.weight"
_DEFAULTS = {"norm_eps": 1e-5, "rope_theta": 10000.0}
# Sizes that the tensors show as well, and what concerns Meta's own server alone.
_INERT = ("vocab_size", "multiple_of", "ffn_dim_multiplier", "max_batch_size")


class MetaFolder:
    """An opened folder. Raises UserError for a file that is absent or broken, or an option that is not supported."""

    def __init__(self, folder: Path):
        self.source = folder / PARAMS
        options = Options(read_json(self.source), str(self.source), _DEFAULTS)
        self.embed, self.layers, self.heads = options.size("dim"), options.layers("n_layers"), options.size("n_heads")
        self.kv_heads = options.optional_size("n_kv_heads") or self.heads
        if self.heads % self.kv_heads or self.embed % (2 * self.heads):
            options.refuse("n_heads", "write a multiple of n_kv_heads, of which dim is an even multiple")
        self.eps, self.theta = options.number("norm_eps"), options.number("rope_theta", above=1.0)
        self.max_position = options.optional_size("max_seq_len") or _context(self.eps, self.theta)
        options.must_be("use_scaled_rope", False, instead="use its Hugging Face folder")
        options.passes(*_INERT)
        options.finish()
        self.paths = sorted(folder.glob(SHARDS))
        if not self.paths:
            raise UserError(f"{folder}: has {PARAMS} but no consolidated.00.pth; fetch the folder again")
        for number, path in enumerate(self.paths):
            if path.name != f"consolidated.{number:02d}.pth":
                raise UserError(f"{folder}: has {path.name} but no consolidated.{number:02d}.pth; fetch it again")
        self.shards = [read_state_dict(path) for path in self.paths]

    def config(self) -> TransformerConfig:
        """Give the network's sizes and options, from params.json and, where it is silent, from the tensors."""
        return TransformerConfig(
            vocab_size=self._shape(_EMBEDDING)[0],
            embed=self.embed,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.embed // self.heads,
            mlp=self._shape(_GATE)[0],
            max_position=self.max_position,
            rope_theta=self.theta,
            norm_eps=self.eps,
            tie_embeddings="output.weight" not in self.shards[0],
            family="llama",
        )

    @property
    def dtype(self) -> str:
        """The type that the embedding is stored in."""
        return dtype_of(self._parts(_EMBEDDING)[0])

    def checkpoint(self, config: TransformerConfig) -> list[Tensor]:
        """List all tensors of the network under their Hugging Face names, put together when their turn comes.

        Raises UserError where they do not fit.
        """
        result = []
        expected = {name: (_their_name(name), shape) for name, shape in file_shapes(leaves(config)).items()}
        for name, (theirs, shape) in expected.items():
            parts = self._parts(theirs)
            if self._shape(theirs) != shape:
                raise UserError(
                    f"{self.source}: makes tensor {theirs} {list(shape)}, the files up to {self.paths[-1].name} hold "
                    f"{list(self._shape(theirs))}; fetch the folder again"
                )
            heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2], 0)
            result.append(Tensor(name, shape, partial(_values, parts, self._cut(theirs), heads), dtype_of(parts[0])))
        # The rotary frequencies, which theta determines.
        known = {theirs for theirs, _ in expected.values()} | {"rope.freqs"}
        for path, shard in zip(self.paths, self.shards, strict=True):
            for name in sorted(shard.keys() - known):
                raise UserError(f"{path}: tensor {name} belongs to no part of a Llama; use another model")
        return result

    def _parts(self, name: str) -> list[Any]:
        """Give a tensor's part in every file; raises UserError where one lacks it or stores another type."""
        for path, shard in zip(self.paths, self.shards, strict=True):
            if name not in shard:
                raise UserError(f"{path}: tensor {name} is missing; fetch the file again")
            if dtype_of(shard[name]) != dtype_of(self.shards[0][name]):
                raise UserError(f"{path}: tensor {name} has another dtype than in {self.paths[0].name}; fetch it again")
        return [shard[name] for shard in self.shards]

    def _cut(self, name: str) -> int | None:
        if name == _EMBEDDING:
            # Llama 1 and 2 share the length of its rows, later ones its rows.
            return int(self.shards[0][name].shape[1] != self.embed)
        return _CUT.get(name.split(".")[-2])

    def _shape(self, name: str) -> tuple[int, ...]:
        parts, cut = self._parts(name), self._cut(name)
        return tuple(
            sum(part.shape[dim] for part in parts) if dim == cut else size for dim, size in enumerate(parts[0].shape)
        )


def _their_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    layer = _LAYER.fullmatch(module)
    return f"{layer[1]}{_NAMES[layer[2]]}.{kind}" if layer else f"{_NAMES[module]}.{kind}"


def _values(parts: Sequence[Any], cut: int | None, heads: int) -> np.ndarray:
    """Join the parts; with heads, put each head's rows from pairs to halves."""
    arrays = [as_array(part) for part in parts]
    joined = arrays[0] if cut is None or len(arrays) == 1 else np.concatenate(arrays, axis=cut)
    return halves_from_pairs(joined, heads) if heads else joined


def _context(eps: float, theta: float) -> int:
    """Give the trained context, which no file states, by what tells the generations apart."""
    if theta == 1e6:
        return 16384  # Code Llama
    return 4096 if eps == 1e-5 else 2048  # Llama 2, Llama 1
