"""How weights are laid out while a policy answers: decoding reads all of them for every token, training does not."""

from typing import NamedTuple

from jax.sharding import Mesh

from podium.config.platform import RolloutMeshConfig
from podium.errors import UserError
from podium.parallel.mesh import INNER, axis_size, split_fsdp
from podium.parallel.sharding import FSDP, Layout


class LaidOut(NamedTuple):
    """A mesh, and the layout of it in which a policy answers; None is that of training."""

    mesh: Mesh
    rollout: Layout | None


def with_rollout(mesh: Mesh, wanted: RolloutMeshConfig | None) -> LaidOut:
    """Give the mesh, with fsdp in two where the rollout needs it, and the layout of `wanted`; see `rollout_layout`."""
    if wanted is not None:
        mesh = split_fsdp(mesh, wanted.tensor // mesh.shape["tensor"])
    return LaidOut(mesh, rollout_layout(mesh, wanted))


def rollout_layout(mesh: Mesh, wanted: RolloutMeshConfig | None) -> Layout | None:
    """Give the layout that has the `wanted` devices along each axis; None keeps that of training.

    It takes whole axes of the training mesh, because a program has one mesh: weights over "tensor", or over it and
    "fsdp", or the faster part of that, and the batch over the rest. On one device there is nothing to move. Raises
    UserError for other sizes.
    """
    if wanted is None or mesh.size == 1:
        return None
    tensor, fsdp, inner = mesh.shape["tensor"], axis_size(mesh, FSDP), axis_size(mesh, INNER)
    layouts = {
        tensor: Layout(("tensor",), ("slice", "data", *_within(mesh, FSDP))),
        inner * tensor: Layout((*_within(mesh, (INNER,)), "tensor"), ("slice", "data", "fsdp")),
        fsdp * tensor: Layout((*_within(mesh, FSDP), "tensor"), ("slice", "data")),
    }
    data = mesh.size // wanted.tensor if wanted.data == -1 else wanted.data
    layout = layouts.get(wanted.tensor)
    if layout is None or data * wanted.tensor != mesh.size:
        shared = [tensor * part for part in range(1, fsdp + 1) if fsdp % part == 0]
        named = " or ".join(f"{{data: {mesh.size // size}, tensor: {size}}}" for size in shared)
        raise UserError(
            f"platform.mesh.rollout: data={data}, tensor={wanted.tensor} is no layout of this mesh "
            f"(fsdp={fsdp}, tensor={tensor}, {mesh.size} devices); write {named}"
        )
    return layout


def _within(mesh: Mesh, axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(axis for axis in axes if axis in mesh.shape)
