"""How weights are laid out while a policy answers: decoding reads all of them for every token, training does not."""

from jax.sharding import Mesh

from podium.config.platform import RolloutMeshConfig
from podium.errors import UserError
from podium.parallel.sharding import Layout


def rollout_layout(mesh: Mesh, wanted: RolloutMeshConfig | None) -> Layout | None:
    """Give the layout that has the `wanted` devices along each axis; None keeps that of training.

    It takes whole axes of the training mesh, because a program has one mesh: weights over "tensor", or over "fsdp" and
    "tensor", and the batch over the rest. On one device there is nothing to move. Raises UserError for other sizes.
    """
    if wanted is None or mesh.size == 1:
        return None
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    choices = {
        (mesh.size // tensor, tensor): Layout(("tensor",), ("slice", "data", "fsdp")),
        (mesh.size // (fsdp * tensor), fsdp * tensor): Layout(("fsdp", "tensor"), ("slice", "data")),
    }
    data = mesh.size // wanted.tensor if wanted.data == -1 else wanted.data
    layout = choices.get((data, wanted.tensor))
    if layout is None:
        named = " or ".join(f"{{data: {data}, tensor: {tensor}}}" for data, tensor in choices)
        raise UserError(
            f"platform.mesh.rollout: data={data}, tensor={wanted.tensor} is no layout of this mesh "
            f"(fsdp={fsdp}, tensor={tensor}, {mesh.size} devices); write {named}"
        )
    return layout
