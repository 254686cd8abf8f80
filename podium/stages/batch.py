"""How many rows a training step has on the devices that are here: what a config leaves open decides results."""

from collections.abc import Mapping
from typing import Any

from podium.config import STAGE_TABLE


def with_batch(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's config with global_batch_size filled in, where it follows from the number of devices.

    Keys and fingerprints are made of it, so that they hold what a step is and not on what it runs.

    Raises:
        UserError: The mesh does not fit the devices.
    """
    section = settings.get(stage)
    if not STAGE_TABLE[stage].uses_devices or not section or section.get("global_batch_size", 0) is not None:
        return dict(settings)
    devices = _data_parallel(settings["platform"]["mesh"])
    # PPO's micro-batches share its prompts; elsewhere each has its own.
    parts = 1 if stage == "ppo" else section["gradient_accumulation_steps"]
    rows = section["per_device_batch_size"] * devices * parts
    return {**settings, stage: {**section, "global_batch_size": rows}}


def _data_parallel(mesh: str | Mapping[str, Any]) -> int:
    """Count the devices that share a batch."""
    # Here, because JAX takes a second to import, and a config that says its batch needs none.
    import jax

    from podium.parallel import placement
    from podium.parallel.mesh import make_mesh

    if isinstance(mesh, str):
        # `auto` lets devices share rows only where it is said how many there are (`podium.parallel.choice`).
        return jax.device_count()
    sizes = {axis: mesh[axis] for axis in ("data", "fsdp", "tensor")}
    return placement.data_parallel(make_mesh(**sizes, slices=mesh["slice"]))
