"""How many rows a step has, and in how many micro-batches the devices take them."""

import sys
from typing import NamedTuple

from podium.config.training import TrainingConfig
from podium.errors import UserError


class StepRows(NamedTuple):
    """rows: of a step, over all devices; micro_batches: of each of its optimizer steps."""

    rows: int
    micro_batches: int


def step_rows(
    name: str, section: TrainingConfig, devices: int, *, mini_batches: int = 1, rollouts: bool = False
) -> StepRows:
    """Decide what a section means on so many data-parallel devices.

    `global_batch_size` rows are shared by `mini_batches` optimizer steps, each in as few micro-batches as
    `per_device_batch_size` allows. Without it every device takes `per_device_batch_size` rows in each of
    `gradient_accumulation_steps` micro-batches, or, of `rollouts`, in all of them together. Raises UserError for rows
    that cannot be shared equally.
    """
    size, most = section.global_batch_size, section.per_device_batch_size
    if size is None:
        parts = section.gradient_accumulation_steps
        rows = most * devices * (1 if rollouts else parts)
        if devices > 1:
            print(
                f"podium {name}: note: {rows} rows a step on {devices} devices; write {name}.global_batch_size: {rows} "
                "to keep it on any number of them",
                file=sys.stderr,
            )
        return StepRows(rows, parts)
    shares = devices * mini_batches
    if size % shares:
        minis = f" in {mini_batches} minibatches" if mini_batches > 1 else ""
        nearest = max(size // shares, 1) * shares
        raise UserError(
            f"{name}.global_batch_size: {size} rows cannot be shared equally by {devices} devices{minis}; "
            f"write a multiple of {shares}, such as {nearest}"
        )
    each = size // shares
    micro_batches = next(parts for parts in range(-(-each // most), each + 1) if each % parts == 0)
    return StepRows(size, micro_batches)
