"""Run PPO: lay out the four networks, step over the prompts, keep samples of what the policy writes."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from podium.config import PpoConfig
from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.parallel import placement
from podium.rlhf.ppo import ScoreFn
from podium.rlhf.program import compile_steps, place, step_operations
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.rewards import measure_scores, measured_by, reward_scores, scorer
from podium.rlhf.roles import Roles, make_roles, ppo_spec
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import PpoState
from podium.rlhf.text_scoring import FunctionReward, FunctionScorer, HostScorer, TextScorer
from podium.training.calls import steps_per_call
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
        frozen, state = place(roles, spec, optimizers, kl_coef=config.kl_coef, seed=run.seed, mesh=mesh)
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
