"""The mesh of a stage: as `platform.mesh` says, or, where that is auto, from the model and the devices at hand."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from podium.config import PodiumConfig
from podium.config.platform import MeshConfig
from podium.errors import UserError
from podium.models import LoraSpec, NetworkConfig
from podium.models.loading import MANIFEST, read_network
from podium.models.weights.json_file import read_json
from podium.parallel.choice import GIB, Chips, Choice, Demand, choose_decoding_mesh, choose_mesh
from podium.parallel.mesh import make_mesh
from podium.parallel.rollout import LaidOut, with_rollout
from podium.rlhf.demand import decoding_demand, ppo_demand, supervised_demand
from podium.rlhf.networks import Network
from podium.rlhf.roles import make_roles
from podium.stages.io import StageIO

Choose = Callable[[Demand, Chips], Choice]


def stage_mesh(config: PodiumConfig, io: StageIO, stage: str) -> LaidOut:
    """Lay the devices out for a stage, and say on stderr why so where several were laid out by `auto`.

    Raises UserError for sizes that do not fit the devices, for devices that are not those of `platform.resources`, and
    for a model whose config.json cannot be read.
    """
    check_devices(config, stage, jax.devices())
    wanted = config.platform.mesh
    if not isinstance(wanted, MeshConfig):
        chips = chips_at_hand()
        if chips is None:
            return LaidOut(make_mesh(), None)
        chosen = _CHOOSE.get(stage, choose_decoding_mesh)(_DEMANDS[stage](config, io), chips)
        wanted = chosen.mesh
        print(f"podium {stage}: note: mesh {_written(wanted)}: {chosen.why}", file=sys.stderr)
    mesh = make_mesh(data=wanted.data, fsdp=wanted.fsdp, tensor=wanted.tensor, slices=wanted.slice)
    return with_rollout(mesh, wanted.rollout)


def check_devices(config: PodiumConfig, stage: str, devices: Sequence[jax.Device]) -> None:
    """Raise UserError where TPUs are not the slice that `platform.resources` asks for: a host was not started, or more.

    Elsewhere the same file drives a laptop.
    """
    resources = config.platform.resources.get(stage)  # type: ignore[call-overload]  # a stage's name
    if resources is None or resources.topology is None or devices[0].platform != "tpu":
        return
    chips = math.prod(map(int, resources.topology.split("x")))
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if set(slices.values()) == {chips}:
        return
    found = " and ".join(map(str, sorted(set(slices.values()))))
    raise UserError(
        f"platform.resources.{stage}.topology: {resources.topology} has {chips} chips, and the devices of this run "
        f"are {found} {'a slice ' if len(slices) > 1 else ''}({devices[0].device_kind}); start podium {stage} on every "
        "host of the slice, or write the topology that these are"
    )


def chips_at_hand() -> Chips | None:
    """Count what there is to choose for; None on one device, on CPUs, and where a device does not tell its memory."""
    devices = jax.devices()
    if len(devices) == 1 or devices[0].platform == "cpu":
        return None
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    # In whole GiB: hosts whose drivers differ by a few bytes choose the same mesh.
    return Chips(len(devices), limit // GIB * GIB, slices) if limit else None


def _base(config: PodiumConfig, io: StageIO) -> NetworkConfig:
    """The network of `stages.base.base_model`."""
    place = io.input("model") if "model" in io.inputs else config.model.name_or_path
    revision = None if "model" in io.inputs else config.model.revision
    return read_network(place, dtype=config.model.dtype, revision=revision)


def _sft(config: PodiumConfig, io: StageIO) -> Demand:
    assert config.sft is not None, "the runner starts no stage without its section"
    return supervised_demand(_base(config, io), config.sft)


def _reward(config: PodiumConfig, io: StageIO) -> Demand:
    own, encoder_only = config.reward.model, config.reward.encoder_only
    if own is None:
        return supervised_demand(_base(config, io), config.reward)
    network = read_network(own.name_or_path, dtype=own.dtype, revision=own.revision, encoder_only=encoder_only)
    return supervised_demand(network, config.reward)


def _ppo(config: PodiumConfig, io: StageIO) -> Demand:
    base = _base(config, io)
    return ppo_demand(make_roles(base, _judge(io.input("reward_model"), base), config.ppo), config.ppo)


def _judge(folder: Path, base: NetworkConfig) -> Network:
    """The reward model of a folder; an adapter is taken to stand on the policy's base, as those of a run do."""
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    if (lora := manifest.get("lora")) is not None:
        return Network(base, LoraSpec(**{**lora, "target_modules": tuple(lora["target_modules"])}), "policy")
    network = read_network(folder, dtype=base.dtype, encoder_only=bool(manifest.get("encoder_only")))
    return Network(network, None, "reward")


def _sample(config: PodiumConfig, io: StageIO) -> Demand:
    return decoding_demand(_base(config, io))


def _evaluate(config: PodiumConfig, io: StageIO) -> Demand:
    """Policy, reference and reward model, each as large as the model that the run starts from."""
    return decoding_demand(_base(config, io), 3)


_DEMANDS = {"sft": _sft, "reward": _reward, "ppo": _ppo, "sample": _sample, "evaluate": _evaluate}
_CHOOSE: dict[str, Choose] = dict.fromkeys(("sft", "reward", "ppo"), choose_mesh)


def _written(mesh: MeshConfig) -> str:
    """As it would stand in a file."""
    sizes = f"data: {mesh.data}, fsdp: {mesh.fsdp}, tensor: {mesh.tensor}"
    rollout = mesh.rollout
    return "{" + sizes + (f", rollout: {{data: {rollout.data}, tensor: {rollout.tensor}}}" if rollout else "") + "}"
