"""Bytes of one chip by kind: what a program is given, exactly; what it makes on the way, as compiled or estimated."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from podium.losses.chunks import LOGITS_PER_ROW
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.parallel.placement import data_parallel
from podium.planning.programs import Planned
from podium.rlhf.networks import Network
from podium.rlhf.work import item_size, weights_of


def bytes_of(tree: Any) -> int:
    """Bytes that one chip holds of a tree of shapes; one without a sharding is a number that every chip has."""
    return sum(math.prod(_on_chip(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _on_chip(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    shape: tuple[int, ...] = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return shape


def arguments(planned: Planned) -> dict[str, int]:
    """Bytes of one chip of what a program is given, by kind."""
    state, frozen, *rest = planned.step.arguments
    trained, optimizer = bytes_of(state.weights), bytes_of(state.optimizer)
    return {
        "frozen weights": bytes_of(frozen),
        "trained weights": trained,
        "optimizer": optimizer,
        "batch and state": bytes_of(state) - trained - optimizer + bytes_of(rest),
    }


@dataclass(frozen=True)
class Temporaries:
    """An estimate of what lives at once beside the arguments, in bytes of a chip; the larger of two moments counts.

    rollout: the cache, and a copy of what is trained in the rollout's layout. update: gradients and their sum, a copy
    in the compute type, what the backward pass keeps of the layers, one layer's own arrays, gathered weights, logits.
    """

    rollout: int
    update: int

    @property
    def largest(self) -> int:
        return max(self.rollout, self.update)


def temporaries(planned: Planned) -> Temporaries:
    """Estimate what a program needs beside its arguments, from shapes alone."""
    mesh = planned.step.mesh
    tensor = mesh.shape["tensor"]
    state = planned.step.arguments[0]
    trained = bytes_of(state.weights)
    rows = -(-planned.rows // data_parallel(mesh))
    micro = -(-rows // planned.micro_batches)
    time = _time(planned)
    update = trained * (2 if planned.micro_batches > 1 else 1)
    for network in planned.trained:
        config = network.config
        update += residuals(config, micro, time, tensor) + _gathered(network, tensor)
        update += 0 if network.lora else trained // len(planned.trained) * item_size(config) // 4
    logits = micro * min(LOGITS_PER_ROW, time * planned.trained[0].config.vocab_size) * 4 // tensor
    return Temporaries(_rollout(planned, rows), int(update + 2 * logits))


def _time(planned: Planned) -> int:
    """Tokens of a row, prompts that stand apart included."""
    batch = planned.step.arguments[2]
    if hasattr(batch, "packed"):
        return int(batch.packed.ids.shape[-1] + batch.packed.prompt_ids.shape[-1])
    return int(batch.ids.shape[-1]) + planned.decode_steps + 1


def residuals(config: NetworkConfig, rows: int, time: int, tensor: int) -> int:
    """Bytes that a backward pass keeps of all layers, and one layer's arrays while it is computed."""
    token, size = rows * time, item_size(config)
    heads = (2 * config.heads + 2 * config.kv_heads) * config.head_dim // tensor
    wide = (2 + config.gated) * config.mlp // tensor
    layer = token * size * (2 * config.embed + heads + wide)
    kept = {
        "full": token * size * config.embed,
        "dots": token * size * (2 * config.embed + heads + wide),
        "none": token * size * (4 * config.embed + 2 * heads + 2 * wide),
    }[config.remat]
    # The backward pass of one layer holds its arrays and their gradients.
    return config.layers * kept + 2 * layer


def _gathered(network: Network, tensor: int) -> int:
    """Two layers' weights as they are gathered from the devices that share them, one while the other is used."""
    config = network.config
    weights = weights_of(config)
    return 2 * (weights.encoder + weights.decoder) // config.layers // tensor * item_size(config)


def _rollout(planned: Planned, rows: int) -> int:
    if not planned.decode_steps:
        return 0
    mesh, config = planned.step.mesh, planned.trained[0].config
    layers = config.decoder_layers if isinstance(config, EncoderDecoderConfig) else config.layers
    slots = _time(planned)
    entry = 2 * config.kv_heads * config.head_dim * item_size(config)
    total = planned.rows * slots * layers * entry
    copied = 0
    if planned.rollout is not None and planned.trained[0].lora is None:
        copied = weights_of(config).total * item_size(config) // planned.share["decode"]
    return total // mesh.size + copied + 2 * rows * slots * config.embed * item_size(config)
