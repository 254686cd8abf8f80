"""Run PPO: lay out the four networks, step over the prompts, keep samples of what the policy writes."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from podium.config import PpoConfig
from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.parallel.rows import rows_apart
from podium.parallel.sharding import constrain
from podium.rlhf import placement
from podium.rlhf.networks import Network, Weights
from podium.rlhf.ppo import (
    Frozen,
    PpoSpec,
    PpoState,
    ScoreFn,
    StepOutput,
    init_state,
    learn,
    make_step,
    roll_out,
)
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.rewards import measure_scores, measured_by, reward_scores, scorer
from podium.rlhf.roles import Roles, make_roles, ppo_spec
from podium.rlhf.text_scoring import FunctionReward, FunctionScorer, HostScorer, Scorer, TextScorer
from podium.training.calls import repeated, steps_per_call
from podium.training.loop import Monitor, TrainingRun, run_loop
from podium.training.optimizer import configured
from podium.training.scalars import Scalars

# In a policy's metadata: what its scores were measured by in training. Evaluation gives rewards as they are.
SCORE_SCALE = "score_scale"


@dataclass(frozen=True)
class PpoRun(TrainingRun):
    """What a run of PPO is given besides the models and the prompts."""

    config: PpoConfig
    rollouts: Path


def train_ppo(policy: Model, reward: Model | FunctionReward, prompts: Sequence[PromptRecord], run: PpoRun) -> Model:
    """Tune `policy` on prompts alone; returns it with its trained adapter, or with new weights.

    Raises UserError for unusable prompts or models, for numbers that are not finite and for a KL above kl_stop.
    """
    tokenizer, judge = policy.tokenizer, reward if isinstance(reward, Model) else None
    roles = make_roles(policy, judge, run.config, run.seed)
    same_tokens = judge is not None and judge.tokenizer.same_as(tokenizer)
    # Where the reward model reads texts, those get their ends there.
    ending = tokenizer.ending if judge is not None and same_tokens and judge.read_at == "end" else ()
    spec = ppo_spec(roles, run.config, tokenizer.eos_ids, tokenizer.pad_id, ending)
    size = run.config.per_device_batch_size * placement.data_parallel(run.mesh)
    room = run.config.max_new_tokens + len(ending)
    batches = PromptBatches.encode(prompts, policy, room=room, size=size, seed=run.seed)
    score: ScoreFn | HostScorer
    if isinstance(reward, FunctionReward):
        score = FunctionScorer(reward, prompts, tokenizer.decode)
    else:
        assert roles.reward is not None, "a reward model has its role"
        scores = reward_scores(roles.reward, spec)
        score = scores if same_tokens else TextScorer(roles.reward, reward, prompts, tokenizer.decode)
    state = fit(roles, spec, batches, run, tokenizer.decode, score)
    trained = state.weights["policy"]
    scale = {"mean": float(state.scale.mean), "std": float(state.scale.std)}
    policy = policy.replace(metadata=policy.metadata | {SCORE_SCALE: scale})
    if spec.policy.lora:
        return policy.replace(lora=spec.policy.lora, adapter=trained["adapter"])
    return policy.replace(params=trained["base"])


def fit(
    roles: Roles, spec: PpoSpec, batches: PromptBatches, run: PpoRun, decode: Any, score: ScoreFn | HostScorer
) -> PpoState:
    """Run the steps over the mesh; `score` may be any function of the tokens, or reads texts."""
    config, mesh = run.config, run.mesh
    rates = {"policy": config.learning_rate, "critic": config.critic.learning_rate or config.learning_rate}
    updates = config.num_ppo_epochs * config.num_mini_batches
    configurations = {
        name: configured(config, learning_rate=rates[name], total_steps=config.max_steps * updates)
        for name in roles.weights
    }
    optimizers = {name: optimizer for name, (optimizer, _) in configurations.items()}
    # On the host, once: an operation of JAX's own beside the step would wait for the step to end.
    schedule = np.asarray(configurations["policy"][1](np.arange(config.max_steps) * updates)).tolist()
    with placement.on(mesh):
        frozen, state = place(roles, spec, optimizers, run)
        judge = scorer(score, mesh)
        scale = measure_scores(spec, frozen, state, batches, judge, samples=config.score_samples, mesh=mesh)
        state = measured_by(state, scale, critic_scores=roles.critic_scores)
        tokens = batches.size * (batches.width + spec.max_new_tokens)
        per_call = 1 if isinstance(score, HostScorer) else steps_per_call(step_operations(roles, spec, tokens))
        compiled = compile_steps(
            spec, optimizers, score, judge, state, batches, mesh, per_call=per_call, sample_rows=config.sample_rows
        )

        def steps(indices: range, state: PpoState) -> tuple[PpoState, Scalars, Any]:
            state, (scalars, rows) = compiled(indices, state, frozen)
            return state, scalars, functools.partial(_keep_rows, rows, batches.width, run, decode)

        monitor = Monitor(
            "ppo",
            shown={"score": "objective/scores_raw", "kl": "objective/kl", "len": "objective/response_length"},
            known=lambda done: {"lr": schedule[done - 1], "episode": done * batches.size},
            check=functools.partial(_check_kl, config.kl_stop),
            on_restart=functools.partial(_cut_rows, run.rollouts),
        )
        return run_loop(steps, state, run, monitor, total=config.max_steps, per_call=per_call)


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
    rows = rows_apart(mesh) if spec.whole_updates else None
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


def place(roles: Roles, spec: PpoSpec, optimizers: Any, run: PpoRun) -> tuple[Frozen, PpoState]:
    """Lay frozen trees and the state out on the mesh."""
    mesh = run.mesh
    networks = {"policy": spec.policy} | ({} if spec.critic is None else {"critic": spec.critic})
    bases = {}
    for name, tree in roles.frozen.bases.items():
        owner = roles.reward if name == "reward" and roles.reward else roles.reference
        bases[name] = placement.place_weights(mesh, Network(owner.config), {"base": tree})["base"]
    reward = placement.place_weights(mesh, roles.reward, roles.frozen.reward) if roles.reward else {}
    weights = {name: placement.place_weights(mesh, networks[name], tree) for name, tree in roles.weights.items()}
    key = jax.random.fold_in(jax.random.key(run.seed), 2)
    state = init_state(weights, optimizers, kl_coef=run.config.kl_coef, key=key)
    optimizer = {
        name: placement.place_optimizer(mesh, networks[name], tree, optimizers[name]) for name, tree in weights.items()
    }
    rest = jax.device_put((state.kl_coef, state.key, state.step, state.scale), placement.whole(mesh))
    return Frozen(bases, reward), PpoState(weights, optimizer, *rest)


def _check_kl(stop: float | None, done: int, numbers: Mapping[str, float]) -> None:
    if stop is not None and numbers["objective/kl"] > stop:
        raise UserError(
            f"ppo: KL {numbers['objective/kl']:.3g} after step {done} is above ppo.kl_stop {stop:g}; the last "
            "checkpoint is intact. Raise kl_coef, lower learning_rate, or raise kl_stop"
        )


def _keep_rows(rows: Mapping[str, jax.Array], width: int, run: PpoRun, decode: Any, place: int, done: int) -> None:
    """Append the rows of the log of the step at a place of its call to the rollouts file."""
    if not run.config.sample_rows or jax.process_index() != 0:
        return
    fetched = {name: array[place] for name, array in jax.device_get(dict(rows)).items()}
    run.rollouts.parent.mkdir(parents=True, exist_ok=True)
    with run.rollouts.open("a", encoding="utf-8") as file:
        for row in range(len(fetched["score"])):
            ids, mask = fetched["ids"][row], fetched["mask"][row]
            line = {
                "step": done,
                "prompt": decode(ids[:width][mask[:width]].tolist()),
                "response": decode(ids[width:][mask[width:]].tolist()),
                "score": float(fetched["score"][row]),
                "kl": float(fetched["kl"][row]),
                "finished": bool(fetched["finished"][row]),
                "num_tokens": int(mask[width:].sum()),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _cut_rows(rollouts: Path, kept_steps: int) -> None:
    """Drop rows of steps that will run again."""
    if not rollouts.exists():
        return
    lines = rollouts.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= kept_steps]
    rollouts.write_text("".join(kept), "utf-8")
