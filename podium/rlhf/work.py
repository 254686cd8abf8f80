"""What a step has to do, from the sizes of its networks: operations by phase, and what it reads of memory for them.

One count for all who ask: `podium plan` before a run, `perf/mfu` in it.

Useful operations are those of the method, whatever computes it: per weight and token 2 forward, 4 with a backward pass
through frozen weights, 6 where they are trained. What rematerialisation computes again, and attention's products of
queries, keys and values, are `executed` beside them: MFU is of the first, HFU of the second.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from podium.models import family
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.lora import LoraSpec
from podium.models.packing import Size
from podium.rlhf.networks import Network
from podium.rlhf.roles import Roles
from podium.rlhf.spec import PpoSpec
from podium.training.speed import Speed, StepWork, speed_of

Tree = Any


@dataclass(frozen=True)
class Weights:
    """Weights of one network by what reads them: encoder and decoder (or the one stack) each token, head each logit.

    adapter: of all layers. Embeddings are looked up, not multiplied; a tied table counts as the head.
    """

    encoder: int
    decoder: int
    head: int
    adapter: int
    total: int


def _size(tree: Tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=64)
def weights_of(config: NetworkConfig, lora: LoraSpec | None = None) -> Weights:
    """Count a network's weights without making any."""
    base, adapter = family.abstract_params(config, lora)
    table = config.vocab_size * config.embed
    parts: Mapping[str, Tree] = base
    encoder = _size(parts["encoder"]) if "encoder" in parts else 0
    decoder = _size(parts["decoder"]) if "decoder" in parts else 0 if encoder else _size(parts["blocks"])
    return Weights(encoder, decoder, table, _size(adapter), _size(base))


@dataclass(frozen=True)
class Texts:
    """Rows that are read: tokens of prompt and response of each, and how many of them get logits."""

    rows: int
    prompt: int
    response: int
    logits: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all rows, padding too: arrays have it whatever stands in them."""
        return self.rows * (self.prompt + self.response)


def products(config: NetworkConfig, texts: Texts) -> float:
    """Weights x tokens of one pass of a network over texts."""
    weights = weights_of(config)
    tokens = texts.prompt + texts.response
    if weights.encoder and weights.decoder:
        each = weights.encoder * texts.prompt + weights.decoder * texts.response
    else:
        each = (weights.encoder or weights.decoder) * tokens
    return float(texts.rows) * (each + weights.head * texts.logits)


def attention(config: NetworkConfig, texts: Texts) -> float:
    """Operations of scores and mixtures in one forward pass, of all pairs of places: 4 a pair and entry of a head."""
    width = 4.0 * config.heads * config.head_dim
    prompt, response = texts.prompt, texts.response
    if isinstance(config, EncoderDecoderConfig) and not config.encoder_only:
        pairs = config.encoder_layers * prompt**2 + config.decoder_layers * response * (response + prompt)
    else:
        pairs = config.layers * (prompt + response) ** 2
    return texts.rows * width * pairs


@dataclass(frozen=True)
class Work:
    """One phase of a step, over all chips.

    useful, executed: floating-point operations. weights: of each pass over a network, the weights that it reads;
    cache: bytes of keys and values read; activations: bytes written and read between products; slots: bytes of
    parameters and optimizer states read and written by updates.
    """

    useful: float
    executed: float
    weights: float
    cache: float = 0.0
    activations: float = 0.0
    slots: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Work(*(one + another for one, another in pairs))


NOTHING = Work(0.0, 0.0, 0.0)


def item_size(config: NetworkConfig) -> int:
    """Bytes of an entry in the type that a network computes in."""
    return 2 if config.dtype == "bfloat16" else 4


def activations(config: NetworkConfig, texts: Texts) -> float:
    """Bytes that one forward pass writes and reads again: what each product of a layer gives, and its norms."""
    heads = 2 * config.heads + 2 * config.kv_heads
    width = 4 * config.embed + heads * config.head_dim + (2 + config.gated) * config.mlp
    return 2.0 * item_size(config) * texts.tokens * config.layers * width


def forward(network: Network, texts: Texts, *, passes: int = 1, first: int = 0) -> Work:
    """Read texts once, in `passes` parts; the layers below `first` were computed before."""
    config = network.config
    share = 1 - first / config.layers
    useful = 2.0 * products(config, texts) * share
    return Work(
        useful,
        useful + attention(config, texts) * share,
        float(weights_of(config).total) * passes * share,
        activations=activations(config, texts) * share,
    )


def backward(network: Network, texts: Texts, *, passes: int = 1, first: int = 0) -> Work:
    """Differentiate what `forward` gave: 2 a weight and token through frozen weights, 4 where they are trained.

    Rematerialisation computes the layers again (`full`), or their attention alone where products are kept (`dots`).
    """
    config, lora = network.config, network.lora
    lowest = max(first, lora.first_layer(config.layers)) if lora else first
    share = 1 - lowest / config.layers
    once, pairs = 2.0 * products(config, texts) * share, attention(config, texts) * share
    again = {"none": 0.0, "dots": 0.0 if config.implementation == "tpu" else pairs, "full": once + pairs}[config.remat]
    factor = 1.0 if lora else 2.0
    read = float(weights_of(config).total) * passes * share
    return Work(
        once * factor,
        once * factor + 2.0 * pairs + again,
        read * (1 if config.remat != "full" else 2),
        activations=activations(config, texts) * share * (3 if config.remat == "full" else 2),
    )


def decode(network: Network, texts: Texts, *, room: int) -> Work:
    """Answer token by token: weights and the whole cache, `room` slots a row, are read for each."""
    config, steps = network.config, max(texts.response - 1, 0)
    one = Texts(texts.rows, 0, 1, 1)
    useful = 2.0 * products(config, one) * steps
    slots = texts.prompt + room
    pairs = 4.0 * config.heads * config.head_dim * config.layers * slots * texts.rows
    cache = float(texts.rows) * slots * config.layers * 2 * config.kv_heads * config.head_dim * item_size(config)
    return Work(useful, useful + pairs * steps, float(weights_of(config).total) * steps, cache * steps)


def optimizer(trained: int, updates: int) -> Work:
    """AdamW in float32 reads a weight, its gradient and two moments, and writes all but the gradient."""
    return Work(0.0, 0.0, 0.0, slots=7.0 * 4 * trained * updates)


def packed_texts(rows: int, width: Size, *, logits: bool) -> Texts:
    """Describe packed rows, with logits at every place or none."""
    return Texts(rows, width.prompt, width.row, width.row if logits else 0)


def supervised_work(network: Network, texts: Texts, *, passes: int) -> Work:
    """Count one optimizer step of sft or reward training on texts, in so many micro-batches."""
    size = weights_of(network.config, network.lora)
    work = forward(network, texts, passes=passes) + backward(network, texts, passes=passes)
    return work + optimizer(size.adapter if network.lora else size.total, 1)


def supervised_speed(
    mesh: Mesh, network: Network, width: Callable[[int], Size], *, rows: int, passes: int, logits: bool
) -> Speed:
    """Give the numbers of speed of such steps; `width(index)` is of the rows of a step."""

    def work(index: int) -> StepWork:
        texts = packed_texts(rows, width(index), logits=logits)
        return StepWork(supervised_work(network, texts, passes=passes).useful, texts.tokens)

    return speed_of(mesh, network.config.dtype, work)


def ppo_texts(spec: PpoSpec, rows: int, width: int) -> Texts:
    """Describe what a step of PPO is about: `rows` prompts of `width` tokens with answers of full length."""
    return Texts(rows, width, spec.max_new_tokens, spec.max_new_tokens)


def ppo_work(spec: PpoSpec, roles: Roles, rows: int, width: int) -> dict[str, Work]:
    """Count a step of PPO by phase, on `rows` prompts of `width` tokens."""
    new, trunk, ending = spec.max_new_tokens, spec.trunk_layers, len(spec.ending)
    text = ppo_texts(spec, rows, width)
    silent = Texts(rows, width, new)
    parts = spec.num_mini_batches * spec.gradient_accumulation_steps
    critics = [] if roles.critic is None else [roles.critic]

    def first(network: Network) -> int:
        return trunk if network.base == roles.policy.base and network.base is not None else 0

    work = {
        "prefill": forward(roles.policy, Texts(rows, width, 0, 0)),
        "decode": decode(roles.policy, text, room=new + (ending if trunk else 0)),
        "reference": forward(roles.reference, text, first=first(roles.reference)),
        "old": NOTHING,
        "update": NOTHING,
    }
    if roles.reward is not None:
        work["reward"] = forward(roles.reward, Texts(rows, width, new + ending), first=first(roles.reward))
    for network, read in [(roles.policy, text), *((critic, silent) for critic in critics)]:
        ahead = forward(network, read, passes=parts, first=first(network))
        if not spec.schedule.whole:
            work["old"] += ahead
        for _ in range(spec.num_ppo_epochs):
            work["update"] += ahead + backward(network, read, passes=parts, first=first(network))
        size = weights_of(network.config, network.lora)
        updates = spec.num_ppo_epochs * spec.num_mini_batches
        work["update"] += optimizer(size.adapter if network.lora else size.total, updates)
    return {name: one for name, one in work.items() if one != NOTHING}


def ppo_speed(mesh: Mesh, spec: PpoSpec, roles: Roles, rows: int, width: int) -> Speed:
    """Give the numbers of speed of such steps, each as if an answer had its full length."""
    useful = sum(phase.useful for phase in ppo_work(spec, roles, rows, width).values())
    step = StepWork(useful, ppo_texts(spec, rows, width).tokens)
    return speed_of(mesh, spec.policy.config.dtype, lambda _: step)
