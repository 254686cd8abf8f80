"""A plan as it is read: what was measured, timed for the chips, with the cost of a run. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from podium.config import PodiumConfig
from podium.config.accelerators import EFFICIENCY
from podium.planning.requests import Request
from podium.planning.roofline import HOUR, Phase, Step, Timed, cost, phases_of, time_step
from podium.planning.topology import Topology
from podium.version import __version__

# Said wherever a time is.
NOT_MEASURED = "predicted from published rates, not measured"


def plan_of(request: Request, found: Mapping[str, Any], price: float | None) -> dict[str, Any]:
    """Make a plan, ready for JSON, of what the worker found."""
    measured, topology, config = found["measured"], request.topology, request.config
    phases = phases_of(measured)
    step = time_step(phases, topology, config.model.dtype, measured["links"])
    return {
        "podium": __version__,
        "stage": request.stage,
        "model": config.model.name_or_path,
        "topology": str(topology),
        "chips": topology.chips,
        "hosts": topology.hosts,
        "mesh": measured["mesh"],
        "rollout": measured["rollout"],
        "chosen": measured["chosen"],
        "hops": measured["hops"],
        "links": measured["links"],
        "fits": measured["fits"],
        "compiled": measured["compiled"],
        "memory": {"kinds": measured["memory"], "peak": measured["peak"], "limit": measured["limit"]},
        "rows": measured["rows"],
        "micro_batches": measured["micro_batches"],
        "step": {
            "measured": False,
            "bound_seconds": step.bound,
            "predicted_seconds": step.predicted,
            "samples_per_second": measured["rows"] / step.predicted,
            "mfu": step.mfu,
            "hfu": step.hfu,
        },
        "phases": [_phase(timed, phase) for timed, phase in zip(step.phases, phases, strict=True)],
        "efficiencies": asdict(EFFICIENCY),
        "run": run_of(config, request.stage, step, topology, price),
        "advice": measured["advice"],
        "notes": _notes(request, found),
        "compile_seconds": measured["compile_seconds"],
        "cached": found["cached"],
    }


def _phase(timed: Timed, phase: Phase) -> dict[str, Any]:
    """Join what a phase does with how long it takes; `collectives` are seconds, `exchanges` what they are made of."""
    return {
        "useful": phase.useful,
        "executed": phase.executed,
        "moved": phase.moved,
        **asdict(timed),
        "bound_by": timed.bound_by,
        "exchanges": [asdict(one) for one in phase.collectives],
    }


def steps_of(config: PodiumConfig, stage: str) -> int | None:
    """Return the steps of a whole run; None where the data decides."""
    steps: int | None = getattr(config, stage).max_steps
    return steps


def run_of(
    config: PodiumConfig, stage: str, step: Step, topology: Topology, price: float | None
) -> dict[str, float | None]:
    """Say how long all steps of the stage take, and what the chips cost meanwhile; None for what is not known."""
    steps = steps_of(config, stage)
    seconds = None if steps is None else steps * step.predicted
    return {
        "steps": steps,
        "hours": None if seconds is None else seconds / HOUR,
        "chip_hours": None if seconds is None else seconds / HOUR * topology.chips,
        "price": price,
        "cost": None if seconds is None or price is None else cost(seconds, topology, price),
        "cost_per_1000_steps": None if price is None else cost(1000 * step.predicted, topology, price),
    }


def _notes(request: Request, found: Mapping[str, Any]) -> list[str]:
    notes = []
    if found["relaid"]:
        notes.append(
            f"XLA says {found['relaid']} times that it copies a whole array to every chip to lay it out anew "
            "(involuntary full rematerialization): a sharding is wrong; please report it"
        )
    if not request.topology.is_tpu:
        notes.append(
            "for GPUs nothing is compiled: memory and exchanges follow from shapes; temporaries may be a third larger"
        )
    if request.stage == "ppo" and "reward" in request.models:
        notes.append(
            "the reward model is taken to read the policy's tokens; where it does not, texts pass through a host"
        )
    longest = "prompts of data.max_prompt_length"
    if request.stage == "ppo":
        notes.append(f"every step has {longest} and answers of ppo.max_new_tokens")
    else:
        notes.append(f"every row is full: {longest}, responses up to data.max_length")
    return notes
