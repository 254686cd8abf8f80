"""Build the program that a stage would run on a mesh, from its config and the config.json of its models alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from podium.config import MeshConfig, PodiumConfig
from podium.config.training import TrainingConfig
from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.families.config_json import parse_config
from podium.models.lora import lora_spec
from podium.models.packing import Size
from podium.models.remat import policy as remat_policy
from podium.models.remat import training_config
from podium.ops.choices import Implementation
from podium.parallel.choice import Chips, Choice, choose_mesh
from podium.parallel.mesh import axis_size
from podium.parallel.rollout import with_rollout
from podium.parallel.sharding import Layout
from podium.rlhf.demand import ppo_demand, supervised_demand
from podium.rlhf.networks import Network
from podium.rlhf.program import abstract_ppo_step
from podium.rlhf.reward_training import abstract_reward_step
from podium.rlhf.roles import make_roles
from podium.rlhf.sft_training import abstract_sft_step
from podium.rlhf.work import Work, packed_texts, ppo_work, supervised_work
from podium.training.trainer import AbstractStep

# Of a model whose config.json names no end token; only the number of end tokens changes a program.
_END = (2,)


@dataclass(frozen=True)
class Job:
    """A stage on some kind of chip, its models by the content of their config.json.

    models: "policy", and "reward" where the reward model is of its own.
    """

    stage: str
    config: PodiumConfig
    models: Mapping[str, Mapping[str, Any]]
    platform: Implementation

    def network(self, name: str) -> NetworkConfig:
        """The network of a model, as it computes on the chips."""
        own = self.config.reward.model if name == "reward" else None
        dtype = (own or self.config.model).dtype
        parsed = parse_config(self.models[name], f"{name}'s config.json", dtype=dtype)
        # cuDNN's attention is traced only where cuDNN is; its reference has the same products.
        return parsed.replace(implementation="reference" if self.platform == "gpu" else self.platform)

    @property
    def mesh(self) -> MeshConfig:
        """The mesh of the config, which the worker has chosen where that is auto."""
        mesh = self.config.platform.mesh
        assert isinstance(mesh, MeshConfig), "chosen before"
        return mesh

    @property
    def section(self) -> TrainingConfig:
        """The stage's own section, its `remat` decided as on the chips."""
        section = getattr(self.config, self.stage)
        if section is None:
            raise UserError(
                f"{self.stage}: the config has no such section; write {self.stage}: {{}}, or another --stage"
            )
        chosen: TrainingConfig = section.model_copy(update={"remat": remat_policy(section.remat, self.platform)})
        return chosen


@dataclass(frozen=True)
class Planned:
    """A program with what it does.

    work: by phase; rows: answers, comparisons or rows of a step; decode_steps: turns of the decode loop; share: devices
    that share the weights of a pass, by phase ("" for all others); networks: those whose layers a backward pass keeps.
    """

    step: AbstractStep
    work: dict[str, Work]
    rows: int
    micro_batches: int
    decode_steps: int
    share: dict[str, int]
    trained: tuple[Network, ...]
    rollout: Layout | None = None


def chosen_mesh(job: Job, chips: Chips) -> Choice:
    """Choose the mesh that a run with `platform.mesh: auto` would on these chips."""
    if job.stage == "ppo":
        roles = make_roles(job.network("policy"), _reward_role(job), job.config.ppo)
        return choose_mesh(ppo_demand(roles, job.config.ppo), chips)
    start = _reward_start(job) if job.stage == "reward" else job.network("policy")
    return choose_mesh(supervised_demand(start, job.section), chips)


def build(job: Job, mesh: Mesh) -> Planned:
    """Make the program of one step. Raises UserError for what the stage would refuse, or the mesh cannot share."""
    return {"ppo": _ppo, "reward": _reward, "sft": _sft}[job.stage](job, mesh)


def _reward_start(job: Job) -> NetworkConfig:
    """What the reward model is trained from, as `stages.base.reward_base` decides."""
    network = job.network("reward" if "reward" in job.models else "policy")
    if not job.config.reward.encoder_only:
        return network
    if not isinstance(network, EncoderDecoderConfig):
        raise UserError("reward.encoder_only: the model has no encoder; leave it out")
    return network.replace(encoder_only=True)


def _reward_role(job: Job) -> Network:
    """The reward model in PPO: an adapter over the policy's base where it was trained as one on it."""
    lora = lora_spec(job.config.reward.lora)
    start = _reward_start(job)
    if lora and start == job.network("policy"):
        return Network(start, lora, "policy")
    return Network(start, None, "reward")


def _end_tokens(raw: Mapping[str, Any]) -> tuple[int, ...]:
    named = raw.get("eos_token_id")
    ids = named if isinstance(named, list) else [named]
    return tuple(one for one in ids if isinstance(one, int)) or _END


def _ppo(job: Job, mesh: Mesh) -> Planned:
    config = job.config.ppo.model_copy(update={"remat": job.section.remat})
    reward = _reward_role(job)
    valued = config.critic.kind == "separate" and config.critic.init == "reward"
    if valued and isinstance(reward.config, EncoderDecoderConfig) and reward.config.encoder_only:
        raise UserError("ppo.critic.init: a reward model of the encoder alone values no single tokens; write policy")
    eos_ids = _end_tokens(job.models["policy"])
    mesh, layout = with_rollout(mesh, job.mesh.rollout)
    made = abstract_ppo_step(
        job.network("policy"),
        reward,
        config,
        mesh,
        width=job.config.data.max_prompt_length,
        eos_ids=eos_ids,
        ending=eos_ids[:1] if job.config.reward.read_at == "end" else (),
        rollout=layout,
    )
    width = made.step.arguments[2].ids.shape[-1]
    tensor = mesh.shape["tensor"]
    rollout = tensor if layout is None else axis_size(mesh, layout.weights)
    return Planned(
        step=made.step,
        work=ppo_work(made.spec, made.roles, made.prompts, width),
        rows=made.prompts,
        micro_batches=made.spec.gradient_accumulation_steps,
        decode_steps=max(config.max_new_tokens - 1, 0),
        share={"": tensor, "prefill": rollout, "decode": rollout},
        trained=tuple(made.roles.trained.values()),
        rollout=layout,
    )


def _reward(job: Job, mesh: Mesh) -> Planned:
    config = job.config.reward.model_copy(update={"remat": job.section.remat})
    start, limits = _reward_start(job), job.config.data
    step = abstract_reward_step(start, config, mesh, prompt=limits.max_prompt_length, length=limits.max_length)
    batch = step.arguments[2]
    return _trained(
        step, Network(training_config(start, config.remat), lora_spec(config.lora)), mesh, batch.packed, False
    )


def _sft(job: Job, mesh: Mesh) -> Planned:
    section, limits = job.section, job.config.data
    start = job.network("policy")
    step = abstract_sft_step(
        start,
        section,  # type: ignore[arg-type]  # the section of this stage
        mesh,
        prompt=limits.max_prompt_length,
        length=limits.max_length,
    )
    network = Network(training_config(start, section.remat), lora_spec(section.lora))
    return _trained(step, network, mesh, step.arguments[2].packed, True)


def _trained(step: AbstractStep, network: Network, mesh: Mesh, packed: Any, logits: bool) -> Planned:
    """Count one optimizer step on packed rows [micro-batches, rows, width]."""
    parts, rows, width = packed.ids.shape
    texts = packed_texts(parts * rows, Size(width, packed.prompt_ids.shape[-1]), logits=logits)
    work = {"update": supervised_work(network, texts, passes=parts)}
    share = {"": mesh.shape["tensor"]}
    return Planned(step, work, texts.rows, parts, 0, share, (network,))
