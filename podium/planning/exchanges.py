"""What devices would say to each other, from the layout alone: where no compiled program tells.

Weights that are cut over fsdp are gathered in every pass and their gradients scattered once a micro-batch; layers that
are cut over tensor add up twice in every pass (Shoeybi et al. 2019, arXiv 1909.08053); copies over data add up
gradients once an update.
"""

from collections.abc import Iterator

from podium.parallel.mesh import axis_size
from podium.parallel.sharding import FSDP
from podium.planning.programs import Planned
from podium.planning.roofline import Collective
from podium.planning.topology import Topology
from podium.rlhf.work import item_size, weights_of


def estimated(planned: Planned, phase: str, topology: Topology) -> Iterator[Collective]:
    """Give the exchanges of one phase."""
    mesh, work = planned.step.mesh, planned.work[phase]
    shape = dict(mesh.shape)
    config = planned.trained[0].config
    size = item_size(config)
    rollout = planned.rollout is not None and phase in ("prefill", "decode")
    per_host = topology.accelerator.chip.per_host

    def crosses(count: int) -> bool:
        return not topology.is_tpu and count > per_host

    fsdp, tensor = axis_size(mesh, FSDP), planned.share.get(phase, planned.share[""])
    cut = "+".join(axis for axis in FSDP if axis in shape)
    if fsdp > 1 and not rollout:
        held = work.weights * size / tensor
        count = 2 * config.layers * work.weights / max(weights_of(config).total, 1)
        yield Collective("all-gather", cut, count, held * (fsdp - 1) / fsdp, True, crosses(fsdp * tensor))
    if tensor > 1:
        sent = work.activations * tensor / mesh.size * _residual_share(planned) * 4 * (tensor - 1) / tensor
        steps = planned.decode_steps if phase == "decode" else 1
        if phase == "decode":
            rows = planned.rows * tensor / mesh.size
            sent = 2 * config.layers * rows * config.embed * size * steps * 2 * (tensor - 1) / tensor
        axis = "+".join(planned.rollout.weights) if rollout and planned.rollout is not None else "tensor"
        yield Collective("all-reduce", axis, 2.0 * config.layers * steps, sent, False, crosses(tensor))
    if phase != "update":
        return
    # Float32 gradients; `slots` are seven passes over what is trained.
    trained = work.slots / 7
    if fsdp > 1:
        sent = trained / shape["tensor"] * (fsdp - 1) / fsdp * planned.micro_batches
        yield Collective("reduce-scatter", cut, 2.0 * config.layers, sent, True, crosses(fsdp * tensor))
    for axis in ("slice", "data"):
        if shape[axis] > 1:
            sent = 2 * trained / (fsdp * shape["tensor"]) * (shape[axis] - 1) / shape[axis]
            yield Collective("all-reduce", axis, 1.0, sent, False, axis == "slice" or crosses(mesh.size))


def _residual_share(planned: Planned) -> float:
    """The residual stream's part of `work.activations`, which count every product's result twice."""
    config = planned.trained[0].config
    heads = 2 * config.heads + 2 * config.kv_heads
    return config.embed / (4 * config.embed + heads * config.head_dim + (2 + config.gated) * config.mlp) / 2
