"""Networks out of parts: nnx modules define structure and axes, plain nested dicts of arrays carry the parameters.

A network is a dict of parts by their place in the parameter tree. A stacked part has one module's structure and leaves
that lead with `layers`, so that it can be scanned and compile time does not grow with depth.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import BlockConfig
from podium.models.layers import INIT_STD, Norm
from podium.models.lora import LoraSpec
from podium.parallel.sharding import Axes

Tree = Any
Place = tuple[str, ...]
Build = Callable[[Any, LoraSpec | None, nnx.Rngs], nnx.Module]


class Part(NamedTuple):
    """How a part is built from (config, lora, rngs), a module-level function; `layers` are stacked, 0: it is single."""

    build: Build
    layers: int = 0


Parts = Mapping[Place, Part]


class Embedder(nnx.Module):
    """Token table [vocab, embed]; its transpose is the output head of a tied model."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, rngs: nnx.Rngs):
        shape = (config.vocab_size, config.embed)
        self.table = nnx.Param(INIT_STD * jax.random.normal(rngs.params(), shape, jnp.float32), axes=("vocab", "embed"))


class Head(nnx.Module):
    """Output kernel [embed, vocab] of an untied model."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, rngs: nnx.Rngs):
        shape = (config.embed, config.vocab_size)
        self.kernel = nnx.Param(
            INIT_STD * jax.random.normal(rngs.params(), shape, jnp.float32), axes=("embed", "vocab")
        )


def final_norm(config: BlockConfig, lora: LoraSpec | None, rngs: nnx.Rngs) -> Norm:
    """Build the norm behind the last block."""
    return Norm(config)


@functools.lru_cache(maxsize=256)
def _graph(build: Build, config: Any, lora: LoraSpec | None) -> tuple[nnx.GraphDef[Any], nnx.State]:
    """The static structure of a part and its abstract state (shapes and axes; no memory)."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(config, lora, nnx.Rngs(0))))
    return graphdef, state


def bind(build: Build, config: Any, lora: LoraSpec | None, tree: Tree) -> Any:
    """Give the module with these parameters, those of a single layer where the part is stacked."""
    return nnx.merge(_graph(build, config, lora)[0], nnx.State(tree))


def init(parts: Parts, config: Any, key: jax.Array, lora: LoraSpec | None) -> tuple[Tree, Tree]:
    """Draw fresh parameters; returns (base tree, adapter tree), the adapter {} without lora."""

    def draw(part: Part, key: jax.Array) -> tuple[Tree, Tree]:
        _, *states = nnx.split(part.build(config, lora, nnx.Rngs(key)), nnx.LoRAParam, ...)
        adapter, base = states
        return nnx.to_pure_dict(base), nnx.to_pure_dict(adapter)

    params: Tree = {}
    adapters: Tree = {}
    for number, (place, part) in enumerate(parts.items()):
        part_key = jax.random.fold_in(key, number)
        if part.layers:
            base, adapter = jax.vmap(functools.partial(draw, part))(jax.random.split(part_key, part.layers))
            if adapter and lora:
                adapted = operator.itemgetter(slice(lora.first_layer(part.layers), None))
                put(adapters, place, jax.tree.map(adapted, adapter))
        else:
            base, _ = draw(part, part_key)
        put(params, place, base)
    return params, adapters


def axes(parts: Parts, config: Any, lora: LoraSpec | None) -> tuple[Tree, Tree]:
    """Logical axes of every leaf of the base tree and of the adapter tree."""

    def axes_of(state: nnx.State, stacked: bool) -> Tree:
        lead: Axes = ("layers",) if stacked else ()
        named = jax.tree.map(
            lambda leaf: lead + tuple(leaf.get_metadata()["axes"]), state, is_leaf=lambda x: isinstance(x, nnx.Variable)
        )
        return nnx.to_pure_dict(named)

    base: Tree = {}
    adapters: Tree = {}
    for place, part in parts.items():
        adapter_state, base_state = nnx.split_state(_graph(part.build, config, lora)[1], nnx.LoRAParam, ...)
        put(base, place, axes_of(base_state, bool(part.layers)))
        if part.layers and lora and (adapter := axes_of(adapter_state, True)):
            put(adapters, place, adapter)
    return base, adapters


def put(tree: Tree, place: Place, value: Tree) -> None:
    """Set a subtree of a nested dict."""
    for name in place[:-1]:
        tree = tree.setdefault(name, {})
    tree[place[-1]] = value


def unstack(tree: Tree) -> tuple[Tree, ...]:
    """Turn a stacked tree into a tuple of single-layer trees."""
    layers = jax.tree.leaves(tree)[0].shape[0]
    return tuple(jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(layers))
