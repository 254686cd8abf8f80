"""Where PPO's arrays lie on a mesh, decided from their shapes alone."""

import contextlib
import functools
from collections.abc import Callable, Mapping

import jax
import optax
from jax.sharding import Mesh

from podium.parallel import placement
from podium.parallel.sharding import Layout, laid_out, spread_tree, tree_shardings
from podium.rlhf.networks import Network, Weights
from podium.rlhf.roles import Roles, abstract_start
from podium.rlhf.state import Frozen, PpoState
from podium.training.optimizer import optimizer_shardings

Optimizers = Mapping[str, optax.GradientTransformation]
# weights -> the state that a run starts from
Start = Callable[[dict[str, Weights]], PpoState]


def with_rollout(roles: Roles, frozen: Frozen, rollout: Layout | None) -> Frozen:
    """Name the policy's frozen base a second time where the policy answers in another layout.

    Under the mesh in force, key-value heads that the rollout's devices cannot share are repeated in it.
    """
    if rollout is None or roles.policy.base is None:
        return frozen
    base = frozen.bases[roles.policy.base]
    with laid_out(rollout):
        base = spread_tree(base, Network(roles.policy.config).axes({"base": base})["base"])
    return frozen._replace(bases={**frozen.bases, "rollout": base})


def frozen_shardings(mesh: Mesh, roles: Roles, frozen: Frozen, rollout: Layout | None) -> Frozen:
    """Give the sharding of every frozen array; `frozen` may hold shapes."""

    def of(network: Network, weights: Weights) -> Weights:
        shardings: Weights = tree_shardings(mesh, network.axes(weights), weights)
        return shardings

    configs = dict.fromkeys(("policy", "rollout"), roles.policy.config)
    configs |= {"reward": roles.reward.config} if roles.reward else {}
    bases = {}
    for name, tree in frozen.bases.items():
        with laid_out(rollout) if rollout is not None and name == "rollout" else contextlib.nullcontext():
            bases[name] = of(Network(configs[name]), {"base": tree})["base"]
    return Frozen(bases, of(roles.reward, frozen.reward) if roles.reward else {})


def state_shardings(mesh: Mesh, roles: Roles, optimizers: Optimizers, state: PpoState) -> PpoState:
    """Give the sharding of every array of a state, which may hold shapes: slots of optimizers like their weights."""
    whole = placement.whole(mesh)
    shardings = jax.tree.map(lambda _: whole, state._replace(weights={}, optimizer={}))
    for name, network in roles.trained.items():
        weights = state.weights[name]
        shardings.weights[name] = tree_shardings(mesh, network.axes(weights), weights)
        shardings.optimizer[name] = optimizer_shardings(optimizers[name], shardings.weights[name], weights, mesh)
    return shardings


def place(
    mesh: Mesh,
    roles: Roles,
    optimizers: Optimizers,
    weights: dict[str, Weights],
    frozen: Frozen,
    start: Start,
    rollout: Layout | None = None,
) -> tuple[Frozen, PpoState]:
    """Lay frozen trees and the state that a run starts from out on the mesh."""
    shardings = state_shardings(mesh, roles, optimizers, jax.eval_shape(start, weights))
    placed = jax.device_put(weights, shardings.weights)
    # Weights stay where they are: given back by the program, they would be copies.
    beside = jax.jit(lambda weights: start(weights)._replace(weights={}), out_shardings=shardings._replace(weights={}))
    with placement.on(mesh):
        frozen = with_rollout(roles, frozen, rollout)
    frozen = jax.device_put(frozen, frozen_shardings(mesh, roles, frozen, rollout))
    return frozen, beside(placed)._replace(weights=placed)


def abstract_arrays(
    mesh: Mesh,
    roles: Roles,
    optimizers: Optimizers,
    start: Start,
    rollout: Layout | None = None,
) -> tuple[Frozen, PpoState]:
    """Give shapes, types and shardings of what `place` lays out, for models of the roles' sizes."""
    weights, frozen = abstract_start(roles)
    with placement.on(mesh):
        frozen = jax.eval_shape(functools.partial(with_rollout, roles, rollout=rollout), frozen)
    state = jax.eval_shape(start, weights)
    shardings = frozen_shardings(mesh, roles, frozen, rollout), state_shardings(mesh, roles, optimizers, state)
    arrays: tuple[Frozen, PpoState] = placement.abstract((frozen, state), shardings)
    return arrays
