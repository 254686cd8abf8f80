"""What to change in a config whose step does not fit: each proposal is tried on shapes before it is named."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from podium.config.load import load_config_data
from podium.errors import UserError
from podium.planning.measure import Measured, by_shapes
from podium.planning.programs import Job
from podium.planning.topology import Topology, larger

# A proposal names a few changes that go together, the least first.
_MOST = 4
Change = dict[str, Any]


def changes(job: Job, topology: Topology, found: Measured) -> list[dict[str, Any]]:
    """Give changes that would make the step fit, as {"set": {key: value}, "topology", "peak"}; peaks are estimates.

    What the compiler needed beside the arguments corrects what is estimated of it.
    """
    estimated = by_shapes(job, topology, trace=False)
    needed = found.memory["temporaries"] / max(estimated.memory["temporaries"], 1) if found.compiled else 1.0
    fitting = []
    for change in [*_single(job, topology), _together(job, topology)]:
        if change and (peak := _peak(job, change, topology, needed)) is not None:
            fitting.append({"set": change, "topology": None, "peak": peak})
    # More chips may be less of a change than adapters.
    return fitting[:_MOST] + list(itertools.islice(_more_chips(job, topology, needed), 1))


def _peak(job: Job, change: Change, topology: Topology, needed: float) -> int | None:
    """Estimate the peak of a changed job where it fits; None where it does not, or the change is refused."""
    try:
        found = by_shapes(with_changes(job, change), topology, trace=False)
    except UserError:
        return None
    temporaries = found.memory["temporaries"]
    peak = found.peak - temporaries + int(temporaries * needed)
    return peak if peak <= found.limit else None


def _more_chips(job: Job, topology: Topology, needed: float) -> Iterator[dict[str, Any]]:
    """The nearest larger topology that holds the step, with all changes together where it must be."""
    for chips in larger(topology):
        rows = _rows_for(job, chips)
        for change in (_spread(job), _together(job, chips)):
            if (peak := _peak(job, change | rows, chips, needed)) is not None:
                yield {"set": change | rows, "topology": chips.written, "peak": peak}
                break


def _spread(job: Job) -> Change:
    """Parameters cut over all chips that are not taken by tensor."""
    change: Change = {"platform.mesh.data": 1, "platform.mesh.fsdp": -1}
    if job.mesh.rollout is not None:
        change["platform.mesh.rollout"] = None
    return {key: value for key, value in change.items() if _value(job, key) != value}


def _rows_for(job: Job, topology: Topology) -> Change:
    """Rows of a step that so many chips can share equally, where its own cannot be."""
    section = getattr(job.config, job.stage)
    shares = topology.chips // max(job.mesh.tensor, 1) * getattr(section, "num_mini_batches", 1)
    rows = section.global_batch_size
    if rows is None or rows % shares == 0:
        return {}
    return {f"{job.stage}.global_batch_size": -(-rows // shares) * shares}


def _single(job: Job, topology: Topology) -> Iterator[Change]:
    """Changes of one thing each, those that cost least first."""
    stage, section, mesh = job.stage, getattr(job.config, job.stage), job.mesh
    yield from _smaller_parts(stage, section)
    if job.section.remat != "full":
        yield {f"{stage}.remat": "full"}
    if job.config.model.dtype == "float32":
        yield {"model.dtype": "bfloat16"}
    fixed = max(mesh.tensor, 1)
    if mesh.data != 1 or mesh.fsdp not in (-1, topology.per_slice // fixed):
        yield _spread(job)
    elif mesh.rollout is not None:
        yield {"platform.mesh.rollout": None}
    if section.lora is None:
        yield {f"{stage}.lora": {"r": 16}}


def _smaller_parts(stage: str, section: Any) -> Iterator[Change]:
    """The same rows of a step in more micro-batches."""
    rows = section.per_device_batch_size
    if section.global_batch_size is not None:
        smaller = [rows // 2**power for power in range(1, 8) if rows // 2**power >= 1]
        yield from ({f"{stage}.per_device_batch_size": size} for size in smaller)
        return
    parts = section.gradient_accumulation_steps
    for power in range(1, 8):
        more = parts * 2**power
        if stage == "ppo" and rows % (more * section.num_mini_batches) == 0:
            yield {"ppo.gradient_accumulation_steps": more}
        elif stage != "ppo" and rows % 2**power == 0:
            size = rows // 2**power
            yield {f"{stage}.gradient_accumulation_steps": more, f"{stage}.per_device_batch_size": size}


def _together(job: Job, topology: Topology) -> Change:
    """All changes that leave the method as it is."""
    stage, section = job.stage, getattr(job.config, job.stage)
    change: Change = {f"{stage}.remat": "full"} | _spread(job)
    parts = list(_smaller_parts(stage, section))
    change |= parts[-1] if parts else {}
    if job.config.model.dtype == "float32":
        change["model.dtype"] = "bfloat16"
    return {key: value for key, value in change.items() if _value(job, key) != value}


def _value(job: Job, key: str) -> Any:
    value: Any = job.config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def with_changes(job: Job, change: Mapping[str, Any]) -> Job:
    """Give the job with some values of its config replaced. Raises UserError for values that exclude each other."""
    data = copy.deepcopy(job.config.model_dump(mode="json"))
    for key, value in change.items():
        *path, last = key.split(".")
        section = data
        for name in path:
            section = section[name]
        section[last] = value
    return replace(job, config=load_config_data(data, source="plan", resolved=True))
