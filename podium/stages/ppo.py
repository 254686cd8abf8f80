"""PPO: a policy, a reward model and prompts in, the tuned policy and samples of its rollouts out.

Metrics: those of the last logged step, under the names of docs/rlhf.md (objective/kl, objective/scores, ...); every
step's are in the policy's metrics.jsonl and TensorBoard files, and there also how fast it was (perf/...).
"""

from podium.config import PodiumConfig
from podium.data.records import read_prompts
from podium.models import save
from podium.parallel.hardware import hardware
from podium.rlhf.ppo_training import PpoRun, train_ppo
from podium.stages.base import base_model, load, work_key
from podium.stages.io import Result, StageIO
from podium.stages.meshes import stage_mesh
from podium.training.metrics import read_metrics, without_clock

ROLLOUTS_FILE = "rollouts.jsonl"


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Tune the starting model on prompts/train.jsonl against the reward model."""
    folder, rollouts = io.output("policy"), io.output("rollouts")
    prompts = read_prompts(io.input("prompts") / "train.jsonl")
    mesh, rollout = stage_mesh(config, io, "ppo")
    base = base_model(config, io, mesh)
    reward = load(io.input("reward_model"), role="reward", dtype=config.model.dtype, mesh=mesh, shared=base)
    rollouts.mkdir(parents=True, exist_ok=True)
    policy = train_ppo(
        base,
        reward,
        prompts,
        PpoRun(
            config=config.ppo,
            seed=config.seed,
            mesh=mesh,
            rollout=rollout,
            folder=folder,
            checkpoints=f"{io.work('policy')}/checkpoints",
            rollouts=rollouts / ROLLOUTS_FILE,
            fingerprint=work_key("ppo", config, io, base),
            step_timeout=config.platform.step_timeout,
            profile=io.profile,
        ),
    )
    save(policy, folder)
    (rollouts / ROLLOUTS_FILE).touch()
    last = read_metrics(folder)[-1]
    # Equal runs give equal metrics: they stand in manifests.
    metrics = {name: value for name, value in without_clock(last).items() if name != "step" and value is not None}
    described = {"base": policy.base, "steps": last["step"], "reward_model": reward.base, "hardware": hardware()}
    metadata = {"policy": described}
    return Result(metrics=metrics, metadata=metadata)
