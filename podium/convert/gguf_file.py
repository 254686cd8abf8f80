"""Read a GGUF file: sizes and options of the network, and its tensors as Hugging Face orders them."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from podium.convert.rotary_rows import halves_from_pairs
from podium.errors import UserError
from podium.models.config import RopeScaling, TransformerConfig
from podium.models.families.options import MAX_LAYERS
from podium.models.rope import inverse_frequencies
from podium.models.weights.layout import file_shapes, leaves
from podium.models.weights.writing import Tensor

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA3_NAMES = _NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_UNSUPPORTED = ("expert_count", "rope.scaling.attn_factor", "attention.scale", "attn_logit_softcapping")


class Architecture(NamedTuple):
    """How llama.cpp's converter writes a family.

    family: its `model_type`; names: by our names; paired: rows of queries and keys stand in pairs, not in halves;
    offset: what it adds to the scale of every norm; unsupported: options, besides those no family may have.
    """

    family: str
    names: Mapping[str, str]
    paired: bool = False
    offset: float = 0.0
    unsupported: tuple[str, ...] = ("attention.sliding_window", "final_logit_softcapping")


_ARCHITECTURES = {
    "llama": Architecture("llama", _NAMES, paired=True),
    "qwen2": Architecture("qwen2", _NAMES),
    "gemma3": Architecture("gemma3_text", _GEMMA3_NAMES, offset=1.0, unsupported=()),
}


class GgufFile:
    """An opened GGUF file. Raises UserError for a broken file or another architecture."""

    def __init__(self, path: Path):
        self.path = path
        try:
            reader = GGUFReader(path)
            self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise UserError(f"{path}: not a readable GGUF file ({error}); fetch the file again") from None
        self._refuse_part()
        self.tensors: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = str(self.fields.get("general.architecture"))
        if self.architecture not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise UserError(f"{path}: architecture {self.architecture!r} is not supported; use one of {known}")
        self.form = _ARCHITECTURES[self.architecture]

    def _refuse_part(self) -> None:
        """Refuse a file that holds a part of the tensors."""
        parts, number = self.fields.get("split.count", 1), self.fields.get("split.no", 0)
        if parts != 1 and parts != 0:
            place = f"part {number + 1} of {parts}" if isinstance(number, int) else f"one of {parts} parts"
            raise UserError(
                f"{self.path}: is {place} (split.count); join the parts with llama-gguf-split --merge FIRST_PART "
                "WHOLE.gguf"
            )

    def _field(self, key: str, default: Any = None) -> Any:
        value = self.fields.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise UserError(f"{self.path}: field {self.architecture}.{key} is missing; fetch the file again")
        return value

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._field(key, default)
        if type(value) is not int or value < 1:
            raise UserError(f"{self.path}: field {self.architecture}.{key} is {value!r}; fetch the file again")
        return value

    def _layers(self) -> int:
        layers = self._size("block_count")
        if layers > MAX_LAYERS:
            raise UserError(f"{self.path}: {layers} layers, above {MAX_LAYERS}; fetch the file again")
        return layers

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._field(key, default)
        if type(value) is not float or not 0.0 < value < math.inf:
            raise UserError(f"{self.path}: field {self.architecture}.{key} is {value!r}; fetch the file again")
        return value

    def config(self) -> TransformerConfig:
        """Give the network's sizes and options; raises UserError for an option we do not follow."""
        for key in (*_UNSUPPORTED, *self.form.unsupported):
            if self._field(key, 0):
                raise UserError(f"{self.path}: {self.architecture}.{key} is not supported; use another model")
        heads, embed = self._size("attention.head_count"), self._size("embedding_length")
        head_dim = self._size("attention.key_length", embed // heads)
        if self._field("rope.dimension_count", head_dim) != head_dim:
            raise UserError(f"{self.path}: rotation of a part of each head is not supported; use another model")
        kv_heads = self._size("attention.head_count_kv", heads)
        if heads % kv_heads or head_dim % 2:
            raise UserError(
                f"{self.path}: {heads} heads of {head_dim}, {kv_heads} key/value heads; fetch the file again"
            )
        if "token_embd.weight" not in self.tensors:
            raise UserError(f"{self.path}: tensor token_embd.weight is missing; fetch the file again")
        theta = _shortest(self._number("rope.freq_base", 10000.0))
        return TransformerConfig(
            vocab_size=int(self.tensors["token_embd.weight"].shape[1]),
            embed=embed,
            layers=self._layers(),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            mlp=self._size("feed_forward_length"),
            max_position=self._size("context_length"),
            rope_theta=theta,
            norm_eps=_shortest(self._number("attention.layer_norm_rms_epsilon")),
            tie_embeddings="output.weight" not in self.tensors,
            attention_bias="blk.0.attn_q.bias" in self.tensors,
            output_bias="blk.0.attn_output.bias" in self.tensors,
            mlp_bias="blk.0.ffn_up.bias" in self.tensors,
            rope_scaling=self._scaling(head_dim, theta),
            family=self.form.family,
            **(self._gemma3(heads, embed) if self.architecture == "gemma3" else {}),
        )

    def _gemma3(self, heads: int, embed: int) -> dict[str, Any]:
        """Give what all Gemma 3 share and the file does not state, and which layers see a window alone."""
        layers, window = self._layers(), self._size("attention.sliding_window")
        pattern = self._field("attention.sliding_window_pattern", 6)
        slides = [(layer + 1) % pattern != 0 for layer in range(layers)] if isinstance(pattern, int) else pattern
        # The 27B alone scales by the width per head, which is not the heads' own; its 62 layers tell it.
        scale = (embed / heads) ** -0.5 if layers == 62 else None
        sliding = {"sliding_window": window, "sliding_layers": tuple(bool(slide) for slide in slides)}
        return {
            "activation": "gelu_tanh",
            "unit_offset": True,
            "sandwich_norms": True,
            "qk_norm": True,
            "query_scale": scale,
            "embedding_scale": math.sqrt(embed),
            "logits_softcap": self.fields.get("gemma3.final_logit_softcapping"),
            **(sliding if any(slides) else {}),
            "local_rope_theta": _shortest(self._number("rope.freq_base_swa", 10000.0)),
        }

    def _scaling(self, head_dim: int, theta: float) -> RopeScaling | None:
        kind = self._field("rope.scaling.type", "none")
        if "rope_freqs.weight" in self.tensors:
            return self._llama3(head_dim, theta)
        if kind == "none":
            return None
        if kind not in ("linear", "yarn"):
            raise UserError(f"{self.path}: rope.scaling.type {kind!r} is not supported; use linear or yarn")
        original = self._size("rope.scaling.original_context_length", self._size("context_length"))
        return RopeScaling(kind, self._number("rope.scaling.factor"), original_max_position=original)

    def _llama3(self, head_dim: int, theta: float) -> RopeScaling:
        """Find the options behind a stored table of frequency divisors: the file has the table only."""
        table = np.asarray(self.tensors["rope_freqs.weight"].data, np.float32)
        result = RopeScaling("llama3", float(table.max()), 1.0, 4.0, 8192)
        plain, _ = inverse_frequencies(head_dim, theta, self._size("context_length"), None)
        scaled, _ = inverse_frequencies(head_dim, theta, self._size("context_length"), result)
        if not np.allclose(plain / scaled, table, rtol=1e-4):
            raise UserError(f"{self.path}: rope_freqs.weight fits no known scaling; import the safetensors release")
        return result

    def checkpoint(self, config: TransformerConfig) -> list[Tensor]:
        """List all tensors of the network, dequantized when their turn comes.

        Raises UserError where they do not fit.
        """
        result = []
        expected = file_shapes(leaves(config))
        for name, shape in expected.items():
            theirs = self._their_name(name)
            tensor = self.tensors.get(theirs)
            if tensor is None:
                raise UserError(f"{self.path}: tensor {theirs} is missing; fetch the file again")
            if tuple(int(size) for size in reversed(tensor.shape)) != shape:
                raise UserError(
                    f"{self.path}: tensor {tensor.name} has shape {list(reversed(tensor.shape.tolist()))}, "
                    f"expected {list(shape)}; fetch the file again"
                )
            heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2], 0)
            pairs = heads if self.form.paired else 0
            offset = self.form.offset if theirs.endswith("norm.weight") else 0.0
            result.append(Tensor(name, shape, partial(_values, tensor, pairs, offset, self.path)))
        leftover = set(self.tensors) - {self._their_name(name) for name in expected} - {"rope_freqs.weight"}
        if leftover:
            raise UserError(
                f"{self.path}: tensor {min(leftover)} belongs to no part of this network; use another model"
            )
        return result

    def _their_name(self, name: str) -> str:
        module, _, kind = name.rpartition(".")
        layer = _LAYER.fullmatch(module)
        return f"blk.{layer[1]}.{self.form.names[layer[2]]}.{kind}" if layer else f"{self.form.names[module]}.{kind}"


def _values(tensor: ReaderTensor, heads: int, offset: float, path: Path) -> np.ndarray:
    """Dequantize and take `offset` off; with heads, put each head's rows from pairs back to halves."""
    try:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError:
        raise UserError(f"{path}: quantization {tensor.tensor_type.name} is not supported; use Q4_0 to Q8_0") from None
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise UserError(f"{path}: tensor {tensor.name} holds NaN or infinity; fetch the file again")
    values = values - np.float32(offset) if offset else values
    return halves_from_pairs(values, heads) if heads else values


def _shortest(value: float) -> float:
    """Give the shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
