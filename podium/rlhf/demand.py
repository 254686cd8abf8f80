"""What a stage asks of its chips, from configurations alone: what `platform.mesh: auto` is chosen by."""

import functools
import math
from collections.abc import Iterable
from typing import Any

import jax

from podium.config import PpoConfig
from podium.config.training import TrainingConfig
from podium.models import family
from podium.models.config import NetworkConfig
from podium.models.lora import lora_spec
from podium.models.precision import in_compute_type
from podium.parallel.choice import Demand
from podium.rlhf.program import make_optimizers
from podium.rlhf.roles import Roles, abstract_sources, start_weights
from podium.training.optimizer import configured

Tree = Any


def ppo_demand(roles: Roles, config: PpoConfig) -> Demand:
    """Count policy, critic, reference and reward model as a run of PPO keeps them."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights, frozen = jax.eval_shape(functools.partial(start_weights, roles), *abstract_sources(roles), key)
    optimizers, _ = make_optimizers(roles, config)
    slots = {name: jax.eval_shape(optimizer.init, weights[name]) for name, optimizer in optimizers.items()}
    resident = {"frozen": _bytes(frozen), "trained": _bytes(weights), "gradients": _bytes(weights)}
    networks = [network.config for network in (roles.policy, roles.reward) if network is not None]
    rows = config.global_batch_size
    return Demand(
        resident | {"optimizer": _bytes(slots)},
        decoded=_bytes(_computed(roles.policy.config)),
        rows=None if rows is None else rows // config.num_mini_batches,
        shared=_shared(networks),
        width=_width(networks),
        copied=roles.policy.base is None,
    )


def supervised_demand(network: NetworkConfig, config: TrainingConfig) -> Demand:
    """Count one network that sft or reward training learns, as a whole or by adapters."""
    lora = lora_spec(config.lora)
    base, adapter = family.abstract_params(network, lora)
    trained = adapter if lora else base
    optimizer, _ = configured(config, learning_rate=config.learning_rate, total_steps=1)
    resident = {"frozen": _bytes(_computed(network))} if lora else {}
    resident |= {"trained": _bytes(trained), "gradients": _bytes(trained)}
    resident |= {"optimizer": _bytes(jax.eval_shape(optimizer.init, trained))}
    return Demand(resident, 0, config.global_batch_size, _shared([network]), _width([network]))


def decoding_demand(network: NetworkConfig, count: int = 1) -> Demand:
    """Count `count` models of one size that answer, or score answers."""
    size = _bytes(_computed(network))
    return Demand({"frozen": count * size}, size, None, _shared([network]), _width([network]))


def _computed(network: NetworkConfig) -> Tree:
    return jax.eval_shape(functools.partial(in_compute_type, dtype=network.dtype), family.abstract_params(network)[0])


def _bytes(tree: Tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shared(networks: Iterable[NetworkConfig]) -> tuple[int, ...]:
    """Sizes that are cut over tensor; key-value heads that do not divide are repeated."""
    return tuple(size for one in networks for size in (one.heads, one.mlp, one.vocab_size))


def _width(networks: Iterable[NetworkConfig]) -> int:
    """What every width has in common."""
    return math.gcd(*(network.embed for network in networks))
