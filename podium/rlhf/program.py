"""PPO's step as programs over a mesh, made from roles and shapes: what is compiled, and how much it computes."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from podium.config import PpoConfig
from podium.models import family
from podium.models.config import NetworkConfig
from podium.parallel import placement
from podium.parallel.alike import alike
from podium.parallel.rows import rows_apart, slices_apart
from podium.parallel.sharding import Layout, constrain
from podium.rlhf.layout import Optimizers, abstract_arrays
from podium.rlhf.networks import Network, Weights
from podium.rlhf.ppo import ScoreFn, StepOutput, learn, make_step
from podium.rlhf.prompt_batches import WIDTH_STEP, PromptBatches
from podium.rlhf.rewards import reward_scores
from podium.rlhf.roles import Roles, make_roles, ppo_spec
from podium.rlhf.rollout import Prompts, roll_out
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen, PpoState, init_state
from podium.rlhf.text_scoring import HostScorer, Scorer
from podium.training.batching import step_rows
from podium.training.calls import repeated
from podium.training.optimizer import configured
from podium.training.scalars import Scalars
from podium.training.trainer import AbstractStep


def step_operations(roles: Roles, num_ppo_epochs: int, tokens: int) -> float:
    """Estimate the floating-point operations of a step on so many tokens: 2 per weight and token forward, 4 backward.

    An upper estimate: adapters need less of the backward pass, and half of an encoder-decoder reads each token.
    """

    def size(network: Network | None) -> int:
        if network is None:
            return 0
        base, _ = family.abstract_params(network.config)
        return sum(leaf.size for leaf in jax.tree.leaves(base))

    trained = size(roles.policy) + size(roles.critic)
    # Rollout, reference and reward model read each token once.
    read = size(roles.policy) + size(roles.reference) + size(roles.reward)
    return 2.0 * tokens * (read + 3 * num_ppo_epochs * trained)


def make_optimizers(roles: Roles, config: PpoConfig) -> tuple[dict[str, optax.GradientTransformation], optax.Schedule]:
    """Return the optimizer of each trained network, and the policy's learning rate by the number of updates before."""
    rates = {"policy": config.learning_rate, "critic": config.critic.learning_rate or config.learning_rate}
    total = config.max_steps * config.num_ppo_epochs * config.num_mini_batches
    made = {name: configured(config, learning_rate=rates[name], total_steps=total) for name in roles.trained}
    return {name: optimizer for name, (optimizer, _) in made.items()}, made["policy"][1]


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


def jit_steps(
    spec: PpoSpec,
    optimizers: Optimizers,
    score: ScoreFn,
    mesh: Mesh,
    state: PpoState,
    *,
    per_call: int,
    sample_rows: int,
) -> Any:
    """Jit (state, frozen, prompts [per_call, ...], count) -> (state, log), laid out like `state`, which is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step_of_all = repeated(_logging(over_mesh(spec, dict(optimizers), score, mesh), sample_rows), per_call)
    return jax.jit(step_of_all, donate_argnums=0, out_shardings=(shardings, None))


def abstract_step(
    spec: PpoSpec,
    optimizers: Optimizers,
    score: ScoreFn,
    mesh: Mesh,
    arrays: tuple[Frozen, PpoState],
    *,
    size: int,
    width: int,
    per_call: int,
    sample_rows: int,
) -> AbstractStep:
    """Make the program that a run would compile for batches of `size` prompts of `width` tokens, without a model.

    `arrays` are those of `layout.abstract_arrays`. `score` may stand for a function that reads texts.
    """
    frozen, state = arrays
    shape = (per_call, size, width)
    where = placement.batch_sharding(mesh, shape, 1)
    prompts = jax.eval_shape(lambda: Prompts(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)))
    prompts = placement.abstract(prompts, Prompts(where, where))  # type: ignore[arg-type]  # shardings of its arrays
    with placement.on(mesh):
        program = jit_steps(spec, optimizers, score, mesh, state, per_call=per_call, sample_rows=sample_rows)
    return AbstractStep(program, (state, frozen, prompts, jax.ShapeDtypeStruct((), jnp.int32)), mesh)


class AbstractPpo(NamedTuple):
    """A run's step without a model, and what was decided of it. prompts: of a step, over all devices."""

    step: AbstractStep
    roles: Roles
    spec: PpoSpec
    prompts: int


def abstract_ppo_step(
    policy: NetworkConfig,
    reward: Network,
    config: PpoConfig,
    mesh: Mesh,
    *,
    width: int,
    eos_ids: tuple[int, ...],
    ending: tuple[int, ...],
    rollout: Layout | None,
) -> AbstractPpo:
    """Make the program of one step that `train_ppo` would compile where the reward model reads the policy's tokens.

    `width`: tokens of the longest prompt. Raises UserError as `train_ppo` for what the mesh cannot share.
    """
    size, parts = step_rows(
        "ppo", config, placement.data_parallel(mesh), mini_batches=config.num_mini_batches, rollouts=True
    )
    roles = make_roles(policy, reward, config)
    spec = replace(ppo_spec(roles, config, eos_ids, 0, ending, rollout), gradient_accumulation_steps=parts)
    optimizers, _ = make_optimizers(roles, config)

    def start(weights: dict[str, Weights]) -> PpoState:
        return init_state(weights, optimizers, kl_coef=config.kl_coef, key=jax.random.key(0))

    arrays = abstract_arrays(mesh, roles, optimizers, start, rollout)
    score = reward_scores(reward, spec)
    columns = -(-width // WIDTH_STEP) * WIDTH_STEP
    step = abstract_step(
        *(spec, optimizers, score, mesh, arrays),
        size=size,
        width=columns,
        per_call=1,
        sample_rows=config.sample_rows,
    )
    return AbstractPpo(step, roles, spec, size)


def compile_steps(
    spec: PpoSpec,
    optimizers: Optimizers,
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
    if not isinstance(score, HostScorer):
        jitted = jit_steps(spec, optimizers, score, mesh, state, per_call=per_call, sample_rows=sample_rows)
        program = alike("the ppo step", jitted)

        def together(indices: range, state: PpoState, frozen: Frozen) -> tuple[PpoState, StepLog]:
            prompts = placement.place_batch(mesh, batches.at(indices, per_call), dim=1)
            out: tuple[PpoState, StepLog] = program(state, frozen, prompts, np.int32(len(indices)))
            return out

        return together
    assert per_call == 1, "texts are read between the programs of a step"
    sample = alike("the ppo answers", jax.jit(functools.partial(roll_out, spec)))
    learn_and_log = _logging(functools.partial(learn, spec, dict(optimizers)), sample_rows)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    update = alike("the ppo updates", jax.jit(learn_and_log, donate_argnums=0, out_shardings=(shardings, None)))

    def step(indices: range, state: PpoState, frozen: Frozen) -> tuple[PpoState, StepLog]:
        prompts = jax.tree.map(lambda x: x[0], batches.at(indices, per_call))
        rollout = sample(frozen.bases, state, placement.place_batch(mesh, prompts))
        scores = judge(frozen, batches.rows(indices[0]), rollout)
        state, (scalars, rows) = update(state, frozen, rollout, scores)
        return state, StepLog(scalars, {name: array[None] for name, array in rows.items()})

    return step


def over_mesh(spec: PpoSpec, optimizers: dict[str, Any], score: ScoreFn, mesh: Mesh) -> Callable[..., Any]:
    """Build the pure step over the mesh, to be jitted.

    Where the mesh cuts nothing but the batch and updates are whole, each device runs it on its own rows, and where
    every update sees all rows, each slice; elsewhere XLA divides it.
    """
    rows = rows_apart(mesh) if spec.schedule.whole else None
    if rows is None and spec.schedule.mini_batches == 1:
        rows = slices_apart(mesh)
    if rows is None:
        return make_step(spec, optimizers, score)
    each, same = PartitionSpec(rows.axes), PartitionSpec()
    # Unchecked: what every device computes alike from gathered rows is the same everywhere.
    return jax.shard_map(
        make_step(spec, optimizers, score, rows),
        mesh=mesh,
        in_specs=(same, same, each),
        out_specs=(same, StepOutput(same, same, each)),  # type: ignore[arg-type]
        axis_names=set(rows.axes) if rows.cut else set(mesh.axis_names),
        check_vma=False,
    )
