"""Run PPO: lay out the four networks, step over the prompts, keep samples of what the policy writes."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from podium.config import PpoConfig
from podium.data.records import PromptRecord
from podium.data.tokenizer import Tokenizer
from podium.errors import UserError
from podium.models import Model
from podium.models.packing import for_rows
from podium.parallel import placement
from podium.parallel.sharding import Layout
from podium.rlhf.layout import place
from podium.rlhf.ppo import ScoreFn
from podium.rlhf.program import compile_steps, make_optimizers, step_operations
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.rewards import measure_scores, measured_by, reward_scores, scorer
from podium.rlhf.roles import Roles, fill_roles, make_roles, ppo_spec, reward_network
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import PpoState, init_state
from podium.rlhf.text_scoring import FunctionReward, FunctionScorer, HostScorer, TextScorer
from podium.rlhf.work import ppo_speed
from podium.training.batching import step_rows
from podium.training.calls import steps_per_call
from podium.training.loop import Monitor, TrainingRun, run_loop
from podium.training.scalars import Scalars
from podium.training.speed import Speed

# In a policy's metadata: what its scores were measured by in training. Evaluation gives rewards as they are.
SCORE_SCALE = "score_scale"


@dataclass(frozen=True)
class PpoRun(TrainingRun):
    """What a run of PPO is given besides the models and the prompts.

    rollouts: the file of samples; rollout: the layout in which the policy answers, None for that of training.
    """

    config: PpoConfig
    rollouts: Path
    rollout: Layout | None = None

    @property
    def records(self) -> list[Path]:
        """Those of every run, and the samples."""
        return [*super().records, self.rollouts]


def train_ppo(policy: Model, reward: Model | FunctionReward, prompts: Sequence[PromptRecord], run: PpoRun) -> Model:
    """Tune `policy` on prompts alone; returns it with its trained adapter, or with new weights.

    Raises UserError for unusable prompts or models, for numbers that are not finite and for a KL above kl_stop.
    """
    config, mesh, tokenizer = run.config, run.mesh, policy.tokenizer
    judge = reward if isinstance(reward, Model) else None
    size, parts = step_rows(
        "ppo", config, placement.data_parallel(mesh), mini_batches=config.num_mini_batches, rollouts=True
    )
    roles = make_roles(policy.config, reward_network(judge, policy), config)
    # Where the reward model reads texts, those get their ends there.
    ends_here = judge is not None and judge.tokenizer.same_as(tokenizer) and judge.read_at == "end"
    ending = tokenizer.ending if ends_here else ()
    spec = ppo_spec(roles, config, tokenizer.eos_ids, tokenizer.pad_id, ending, run.rollout)
    spec = replace(spec, gradient_accumulation_steps=parts)
    room = config.max_new_tokens + len(ending)
    batches = PromptBatches.encode(prompts, policy, room=room, size=size, seed=run.seed)
    score = _score(spec, roles, reward, prompts, tokenizer)
    tokens = batches.size * (batches.width + spec.max_new_tokens)
    operations = step_operations(roles, config.num_ppo_epochs, tokens)
    per_call = 1 if isinstance(score, HostScorer) else steps_per_call(operations)
    optimizers, schedule = make_optimizers(roles, config)
    key = jax.random.fold_in(jax.random.key(run.seed), 2)
    start = functools.partial(init_state, optimizers=optimizers, kl_coef=config.kl_coef, key=key)
    filled = fill_roles(roles, policy, judge, run.seed)
    with placement.on(mesh):
        frozen, state = place(mesh, roles, optimizers, *filled, start, run.rollout)
        outside = scorer(score, mesh)
        scale = measure_scores(spec, frozen, state, batches, outside, samples=config.score_samples, mesh=mesh)
        state = measured_by(state, scale, critic_scores=roles.critic_scores)
        compiled = compile_steps(
            spec, optimizers, score, outside, state, batches, mesh, per_call=per_call, sample_rows=config.sample_rows
        )

        def steps(indices: range, state: PpoState) -> tuple[PpoState, Scalars, Any]:
            state, (scalars, rows) = compiled(indices, state, frozen)
            return state, scalars, functools.partial(_keep_rows, rows, batches.width, run, tokenizer.decode)

        speed = ppo_speed(mesh, spec, roles, batches.size, batches.width)
        monitor = _monitor(run, schedule, batches.size, speed)
        state = run_loop(steps, state, run, monitor, total=config.max_steps, per_call=per_call)
    return _tuned(policy, spec, state)


def _score(
    spec: PpoSpec, roles: Roles, reward: Model | FunctionReward, prompts: Sequence[PromptRecord], tokenizer: Tokenizer
) -> ScoreFn | HostScorer:
    """Score tokens where the reward model has the policy's, texts elsewhere."""
    if isinstance(reward, FunctionReward):
        return FunctionScorer(reward, prompts, tokenizer.decode)
    assert roles.reward is not None, "a reward model has its role"
    if reward.tokenizer.same_as(tokenizer):
        return reward_scores(roles.reward, spec)
    # One answer a prompt: nothing is shared.
    alone = replace(roles.reward, config=for_rows(roles.reward.config, ()))
    return TextScorer(alone, reward, prompts, tokenizer.decode)


def _monitor(run: PpoRun, schedule: optax.Schedule, size: int, speed: Speed) -> Monitor:
    config = run.config
    updates = config.num_ppo_epochs * config.num_mini_batches
    # On the host, once: an operation of JAX's own beside the step would wait for the step to end.
    rates = np.asarray(schedule(np.arange(config.max_steps) * updates)).tolist()
    return Monitor(
        "ppo",
        shown={"score": "objective/scores_raw", "kl": "objective/kl", "len": "objective/response_length"},
        known=lambda done: {"lr": rates[done - 1], "episode": done * size},
        check=functools.partial(_check_kl, config.kl_stop),
        on_restart=functools.partial(_cut_rows, run.rollouts),
        speed=speed,
    )


def _tuned(policy: Model, spec: PpoSpec, state: PpoState) -> Model:
    """Return the policy with what was trained, and what its scores were measured by."""
    scale = {"mean": float(state.scale.mean), "std": float(state.scale.std)}
    policy, trained = policy.replace(metadata=policy.metadata | {SCORE_SCALE: scale}), state.weights["policy"]
    if spec.policy.lora:
        return policy.replace(lora=spec.policy.lora, adapter=trained["adapter"])
    return policy.replace(params=trained["base"])


def _check_kl(stop: float | None, done: int, numbers: Mapping[str, float]) -> None:
    if stop is not None and numbers["objective/kl"] > stop:
        raise UserError(
            f"ppo: KL {numbers['objective/kl']:.3g} after step {done} is above ppo.kl_stop {stop:g}; the last "
            "checkpoint is intact. Raise kl_coef, lower learning_rate, or raise kl_stop"
        )


def _keep_rows(rows: Mapping[str, jax.Array], width: int, run: PpoRun, decode: Any, place: int, done: int) -> None:
    """Append the rows of the log of the step at a place of its call to the rollouts file."""
    if not run.config.sample_rows:
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
