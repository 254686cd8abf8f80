"""The process that measures: `python -m podium.planning.worker`, a request on stdin, lines of JSON on stdout.

A process of its own, because the compiler for TPUs reads its environment when JAX starts, which happens once. Lines are
{"say": ...} on the way, then one of {"measured": ...}, {"error": ...} or {"sweep": ...}.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from podium.errors import explained


def main() -> None:
    """Answer the one request."""
    # What libraries print must not stand between the lines.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)

    def say(text: str) -> None:
        _write(answers, {"say": text})

    with contextlib.redirect_stdout(sys.stderr):
        try:
            _write(answers, _answer(request, say))
        except Exception as error:
            meant = explained(error)
            if meant is None:
                raise
            _write(answers, {"error": str(meant)})


def _write(answers: TextIO, line: Mapping[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")


def _answer(request: Mapping[str, Any], say: Any) -> dict[str, Any]:
    from podium.config import MeshConfig
    from podium.config.load import load_config_data
    from podium.planning import advice, measure, sweep
    from podium.planning.meshes import chips_of
    from podium.planning.programs import Job, chosen_mesh
    from podium.planning.topology import Topology

    config = load_config_data(request["config"], source="plan", resolved=True)
    topology = Topology(request["topology"], tuple(request["shape"]), request["slices"])
    job = Job(request["stage"], config, request["models"], "tpu" if topology.is_tpu else "gpu")
    why = None
    if not isinstance(config.platform.mesh, MeshConfig):
        choice = chosen_mesh(job, chips_of(topology))
        why, job = choice.why, advice.with_changes(job, {"platform.mesh": choice.mesh.model_dump(mode="json")})
    if request["sweep"]:
        return {"sweep": sweep.run(job, topology, say)}
    if topology.is_tpu:
        measured = measure.by_compiling(job, topology, say)
    else:
        say(f"tracing the {job.stage} step")
        measured = measure.by_shapes(job, topology, trace=True)
    changes = [] if measured.fits else advice.changes(job, topology, measured)
    rollout = job.mesh.rollout if job.stage == "ppo" else None
    chosen = {"chosen": why, "rollout": None if rollout is None else rollout.model_dump()}
    return {"measured": measured.data() | chosen | {"advice": changes}}


if __name__ == "__main__":
    main()
