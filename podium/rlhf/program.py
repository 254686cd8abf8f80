"""PPO's step as programs over a mesh: what is laid out where, and what is compiled."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from podium.parallel import placement
from podium.parallel.rows import rows_apart
from podium.parallel.sharding import constrain
from podium.rlhf.networks import Network, Tree, Weights
from podium.rlhf.ppo import ScoreFn, StepOutput, learn, make_step
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.roles import Roles
from podium.rlhf.rollout import roll_out
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen, PpoState, init_state
from podium.rlhf.text_scoring import HostScorer, Scorer
from podium.training.calls import repeated
from podium.training.optimizer import open_optimizer
from podium.training.scalars import Scalars


def step_operations(roles: Roles, spec: PpoSpec, tokens: int) -> float:
    """Estimate the floating-point operations of a step on so many tokens: 2 per weight and token forward, 4 backward.

    An upper estimate: adapters need less of the backward pass, and half of an encoder-decoder reads each token.
    """

    def size(network: Network, weights: Weights) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(network.params(roles.frozen.bases, weights)))

    policy = size(roles.policy, roles.weights["policy"])
    critic = 0 if roles.critic is None else size(roles.critic, roles.weights["critic"])
    # Rollout, reference and reward model read each token once.
    read = policy + size(roles.reference, {})
    read += 0 if roles.reward is None else size(roles.reward, roles.frozen.reward)
    return 2.0 * tokens * (read + 3 * spec.num_ppo_epochs * (policy + critic))


class StepLog(NamedTuple):
    """What a run reads of the output of a call's steps; arrays lead with steps."""

    scalars: Scalars
    rows: dict[str, jax.Array]


def _logging(step: Callable[..., tuple[PpoState, StepOutput]], count: int) -> Callable[..., tuple[PpoState, StepLog]]:
    """Give every device a step's numbers and its first `count` rows: the process that writes need not hold them."""

    def logged(*arguments: Any) -> tuple[PpoState, StepLog]:
        state, out = step(*arguments)
        rows = {name: constrain(array[:count], *[None] * array.ndim) for name, array in out.rows.items()}
        return state, StepLog(Scalars.pack(out.metrics), rows)

    return logged


def compile_steps(
    spec: PpoSpec,
    optimizers: Mapping[str, Any],
    score: ScoreFn | HostScorer,
    judge: Scorer,
    state: PpoState,
    batches: PromptBatches,
    mesh: Mesh,
    *,
    per_call: int,
    sample_rows: int,
) -> Callable[[range, PpoState, Frozen], tuple[PpoState, StepLog]]:
    """Give (indices, state, frozen) -> (state, log): one program, or three with texts between them.

    `state` is donated. Texts are the one reason to leave the devices inside a step: there is no other way from one
    tokenizer's tokens to another's.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    if not isinstance(score, HostScorer):
        step_of_all = repeated(_logging(over_mesh(spec, dict(optimizers), score, mesh), sample_rows), per_call)
        program = jax.jit(step_of_all, donate_argnums=0, out_shardings=(shardings, None))

        def together(indices: range, state: PpoState, frozen: Frozen) -> tuple[PpoState, StepLog]:
            prompts = placement.place_batch(mesh, batches.at(indices, per_call), dim=1)
            out: tuple[PpoState, StepLog] = program(state, frozen, prompts, np.int32(len(indices)))
            return out

        return together
    assert per_call == 1, "texts are read between the programs of a step"
    sample = jax.jit(functools.partial(roll_out, spec))
    learn_and_log = _logging(functools.partial(learn, spec, dict(optimizers)), sample_rows)
    update = jax.jit(learn_and_log, donate_argnums=0, out_shardings=(shardings, None))

    def step(indices: range, state: PpoState, frozen: Frozen) -> tuple[PpoState, StepLog]:
        prompts = jax.tree.map(lambda x: x[0], batches.at(indices, per_call))
        rollout = sample(frozen.bases, state, placement.place_batch(mesh, prompts))
        scores = judge(frozen, batches.rows(indices[0]), rollout)
        state, (scalars, rows) = update(state, frozen, rollout, scores)
        return state, StepLog(scalars, {name: array[None] for name, array in rows.items()})

    return step


def over_mesh(spec: PpoSpec, optimizers: dict[str, Any], score: ScoreFn, mesh: Mesh) -> Callable[..., Any]:
    """Build the pure step over the mesh, to be jitted.

    Where the mesh cuts nothing but the batch and updates are whole, each device runs it on its own rows; elsewhere
    XLA divides it.
    """
    rows = rows_apart(mesh) if spec.schedule.whole else None
    if rows is None:
        return make_step(spec, optimizers, score)
    each, same = PartitionSpec(rows.axes), PartitionSpec()
    # Unchecked: what every device computes alike from gathered rows is the same everywhere.
    return jax.shard_map(
        make_step(spec, optimizers, score, rows),
        mesh=mesh,
        in_specs=(same, same, each),
        out_specs=(same, StepOutput(same, same, each)),  # type: ignore[arg-type]
        check_vma=False,
    )


def place(
    roles: Roles, spec: PpoSpec, optimizers: Any, *, kl_coef: float, seed: int, mesh: Mesh
) -> tuple[Frozen, PpoState]:
    """Lay frozen trees and the state out on the mesh."""
    networks = {"policy": spec.policy} | ({} if spec.critic is None else {"critic": spec.critic})

    def lay_out(network: Network, tree: Tree) -> Tree:
        return placement.place_weights(mesh, network.axes(tree), tree)

    bases = {}
    for name, tree in roles.frozen.bases.items():
        owner = roles.reward if name == "reward" and roles.reward else roles.reference
        bases[name] = lay_out(Network(owner.config), {"base": tree})["base"]
    reward = lay_out(roles.reward, roles.frozen.reward) if roles.reward else {}
    weights = {name: lay_out(networks[name], tree) for name, tree in roles.weights.items()}
    key = jax.random.fold_in(jax.random.key(seed), 2)
    state = init_state(weights, optimizers, kl_coef=kl_coef, key=key)
    optimizer = {
        name: open_optimizer(optimizers[name], mesh, networks[name].axes(tree), tree) for name, tree in weights.items()
    }
    rest = jax.device_put((state.kl_coef, state.key, state.step, state.scale), placement.whole(mesh))
    return Frozen(bases, reward), PpoState(weights, optimizer, *rest)
