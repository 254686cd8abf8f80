"""Read config.json key by key: an option that asks for something and is not read is refused, and none is ignored."""

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from podium.errors import UserError
from podium.ops.choices import Activation

# Keys that change neither the network nor its weights, whatever the family. Dropout is off everywhere by design.
_INERT = frozenset(
    {
        "model_type",
        "architectures",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "use_cache",
        "cache_implementation",
        "gradient_checkpointing",
        "initializer_range",
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
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
        "output_past",
        "unsloth_version",
        "chunk_size_feed_forward",
        "tokenizer_class",
        "model_max_length",
        "prefix",
        "reward_bias",  # read by `loading`
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
    }
)

_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

MAX_LAYERS = 10_000


class Options:
    """The content of a config.json, and what transformers assumes for keys that it leaves out.

    `source` names it in errors. Every method raises UserError that names file and option.
    """

    def __init__(self, raw: Mapping[str, Any], source: str, defaults: Mapping[str, Any]):
        self.raw, self.source, self._defaults = raw, source, defaults
        self._read: set[str] = set()

    def get(self, key: str) -> Any:
        """The value: None where the key is null, the default where it is absent."""
        self._read.add(key)
        return self.raw.get(key, self._defaults.get(key))

    def _value(self, key: str) -> Any:
        """The value; null counts as absent."""
        result = self.get(key)
        return self._defaults.get(key) if result is None else result

    def size(self, key: str) -> int:
        """A positive whole number that fits into 32 bits, as the sizes of arrays do."""
        value = self._value(key)
        if type(value) is not int or not 1 <= value < 2**31:
            raise UserError(f"{self.source}: {key} is {value!r}; write a positive whole number")
        return value

    def layers(self, key: str) -> int:
        """A number of layers: each is named on its own, so that an absurd number would fill the memory."""
        value = self.size(key)
        if value > MAX_LAYERS:
            self.refuse(key, f"write {MAX_LAYERS} at most")
        return value

    def optional_size(self, key: str) -> int | None:
        """A positive whole number, or None where the key is null, or absent without a default."""
        return None if self.get(key) is None else self.size(key)

    def number(self, key: str, *, above: float = 0.0) -> float:
        """A finite number above a bound: where zero, negative numbers or NaN stand, a network computes NaN."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= sys.float_info.max:
            raise UserError(f"{self.source}: {key} is {value!r}; write a number above {above:g}")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self.get(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        return bool(self.optional_flag(key))

    def optional_flag(self, key: str) -> bool | None:
        value = self._value(key)
        if not isinstance(value, bool | None):
            raise UserError(f"{self.source}: {key} is {value!r}; write true or false")
        return value

    def index(self, key: str) -> int:
        """The place of a layer or token, counted from 0."""
        value = self._value(key)
        if type(value) is not int or not 0 <= value < 2**31:
            raise UserError(f"{self.source}: {key} is {value!r}; write a whole number, 0 or more")
        return value

    def words(self, key: str) -> list[str] | None:
        """A list of strings, None where the key is null or absent."""
        value = self.get(key)
        if value is not None and not (isinstance(value, list | tuple) and all(isinstance(x, str) for x in value)):
            raise UserError(f"{self.source}: {key} is {value!r}; write a list of strings")
        return None if value is None else list(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """A copy of an object, empty where the key is null or absent."""
        value = self.get(key) or {}
        if not isinstance(value, dict):
            raise UserError(f"{self.source}: {key} is {value!r}; write an object")
        return dict(value)

    def activation(self, key: str) -> Activation:
        value = self._value(key)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            self.refuse(key, f"use a model with {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def passes(self, *keys: str) -> None:
        """Let keys pass that change nothing in this family."""
        self._read.update(keys)

    def must_be(self, key: str, *allowed: Any, instead: str) -> None:
        """Refuse an option that has another value than these; null, and being absent, is allowed."""
        value = self.get(key)
        if value is not None and value not in allowed:
            self.refuse(key, instead)

    def refuse(self, key: str, instead: str) -> NoReturn:
        raise UserError(f"{self.source}: {key}={self.get(key)!r} is not supported; {instead}")

    def finish(self) -> None:
        """Refuse what was not read: the network here would not follow it."""
        for key, value in self.raw.items():
            # A null, zero or false option asks for nothing.
            if value and key not in self._read and key not in _INERT and not key.startswith("_"):
                self.refuse(key, "remove it if it does not change the network, else use another model")
