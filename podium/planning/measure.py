"""Measure one program on one mesh: what it holds, computes, moves and exchanges."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from podium.parallel.mesh import axis_size
from podium.parallel.phases import PHASES
from podium.parallel.sharding import FSDP
from podium.parallel.topology import mesh_hops
from podium.planning import memory, meshes
from podium.planning.collectives import collectives_in
from podium.planning.exchanges import estimated
from podium.planning.operations import count
from podium.planning.programs import Job, Planned, build
from podium.planning.roofline import Phase
from podium.planning.topology import Topology
from podium.rlhf.work import NOTHING, Work, item_size

GIB = 2**30
Say = Callable[[str], None]
# What libtpu 0.0.42 says of a program that is too large: its temporaries, or all of it, and what a chip has.
_AMOUNT = r"([\d.]+)([KMGT]?)"
_TEMPORARIES = re.compile(rf"HLO temporaries \({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)")
_ALL = re.compile(rf"Used {_AMOUNT} of {_AMOUNT} hbm")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Measured:
    """What is known of a step on a mesh. memory: bytes of a chip by kind; peak: of all that lives at once.

    hops, links: as `meshes` counts them, where the chips' places are known.

    compiled: whether the compiler said so, or shapes alone; fits: within `limit`.
    """

    mesh: Mapping[str, int]
    hops: Mapping[str, float]
    links: Mapping[str, float]
    memory: Mapping[str, int]
    peak: int
    limit: int
    compiled: bool
    fits: bool
    phases: tuple[Phase, ...]
    rows: int
    micro_batches: int
    compile_seconds: float = 0.0

    def data(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        return asdict(self)


def by_compiling(job: Job, topology: Topology, say: Say) -> Measured:
    """Compile the program for TPUs, whole, as training does. Raises UserError as `programs.build`."""
    say(f"tracing the {job.stage} step")
    planned = build(job, meshes.tpu_mesh(topology, meshes.sizes_on(topology, job.mesh)))
    mesh = planned.step.mesh
    traced = planned.step.trace()
    executed = count(traced.jaxpr, decode_steps=planned.decode_steps)
    held, limit = memory.arguments(planned), topology.accelerator.chip.memory
    # Checked before: a compiler takes minutes to find out that arguments alone are too large.
    found = _from_shapes(planned, topology, executed)
    hops = {name: ring.mean for name, ring in mesh_hops(mesh, planned.rollout).items()}
    found = replace(found, hops=hops, links=meshes.links(mesh, topology))
    if sum(held.values()) > limit:
        return found
    say(f"compiling the {job.stage} step for {topology}")
    began = time.monotonic()
    try:
        with jax.set_mesh(mesh):
            compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return _too_large(found, str(error))
    seconds = time.monotonic() - began
    say("reading the compiled program")
    stats = compiled.memory_analysis()
    exchanged = collectives_in(compiled.as_text(), dict(mesh.shape), decode_steps=planned.decode_steps)
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    kinds = held | {
        "temporaries": stats.temp_size_in_bytes,
        "outputs": max(outputs, 0),
        "program": stats.generated_code_size_in_bytes,
    }
    return replace(
        found,
        memory=kinds,
        peak=sum(kinds.values()),
        compiled=True,
        fits=sum(kinds.values()) <= limit,
        phases=tuple(replace(phase, collectives=exchanged.get(phase.name, [])) for phase in found.phases),
        compile_seconds=seconds,
    )


def _too_large(found: Measured, message: str) -> Measured:
    """Read what the compiler says of a program that does not fit. Raises for anything else, which is our fault."""
    held = sum(_arguments(found).values())
    needed, limit = refusal(message, held)
    kinds = dict(found.memory) | {"temporaries": max(needed - held, 0)}
    return replace(found, memory=kinds, peak=needed, limit=limit, compiled=True, fits=False)


def refusal(message: str, arguments: int) -> tuple[int, int]:
    """Give the bytes that a refused program needs, with so many of arguments, and those that a chip has."""
    for pattern, beside in ((_TEMPORARIES, arguments), (_ALL, 0)):
        if "RESOURCE_EXHAUSTED" in message and (said := pattern.search(message)):
            needed, unit, limit, unit_of_limit = said.groups()
            return int(float(needed) * _UNITS[unit]) + beside, int(float(limit) * _UNITS[unit_of_limit])
    raise RuntimeError(f"the compiler refused the program: {message[:2000]}")


def _arguments(found: Measured) -> dict[str, int]:
    return {name: size for name, size in found.memory.items() if name != "temporaries"}


def by_shapes(job: Job, topology: Topology, *, trace: bool) -> Measured:
    """Measure without a compiler. `trace` counts operations of the program itself, else they follow from sizes."""
    planned = build(job, meshes.shape_mesh(meshes.sizes_on(topology, job.mesh)))
    executed = None
    if trace:
        alone = build(job, meshes.shape_mesh((1, 1, 1, 1)))
        executed = _scaled(alone, planned)
    return _from_shapes(planned, topology, executed)


def _scaled(alone: Planned, planned: Planned) -> dict[str, float]:
    """Operations of a program over all devices, from that of one with its own rows."""
    step = alone.step
    traced = jax.make_jaxpr(lambda *arguments: step.program(*arguments))(*_unplaced(step.arguments))
    counts = count(traced, decode_steps=alone.decode_steps)
    return {name: value * planned.rows / alone.rows for name, value in counts.items()}


def _unplaced(arguments: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)


def _from_shapes(planned: Planned, topology: Topology, executed: Mapping[str, float] | None) -> Measured:
    mesh = planned.step.mesh
    held = memory.arguments(planned) | {"temporaries": memory.temporaries(planned).largest}
    limit = topology.accelerator.chip.memory
    phases = tuple(
        Phase(
            name,
            planned.work[name].useful,
            planned.work[name].executed if executed is None else executed.get(name, 0.0),
            moved(planned, name),
            tuple(estimated(planned, name, topology)),
        )
        for name in PHASES
        if name in planned.work
    )
    peak = sum(held.values())
    sizes, rows, parts = meshes.sizes_of(mesh), planned.rows, planned.micro_batches
    return Measured(sizes, {}, {}, held, peak, limit, False, peak <= limit, phases, rows, parts)


def moved(planned: Planned, name: str) -> float:
    """Bytes of a chip's memory that a phase reads and writes: weights of each pass, the cache, activations, states."""
    mesh: Mesh = planned.step.mesh
    work: Work = planned.work.get(name, NOTHING)
    share = planned.share.get(name, planned.share[""])
    weights = work.weights * item_size(planned.trained[0].config) / share
    cut = axis_size(mesh, (*FSDP, "tensor"))
    return weights + (work.cache + work.activations) / mesh.size + work.slots / cut
