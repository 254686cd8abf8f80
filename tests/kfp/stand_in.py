"""A program with the protocol of `podium STAGE --executor-input JSON`, its skipping and resuming, and no work in it.

It lets a test see what the orchestrator starts, in which order and with what, kill it in the middle, and start it
again, in a second instead of a minute. What it does is read from STAND_IN_* variables:

LOG: file that gets one line per event. STEPS: how many steps a stage takes. SLEEP: seconds per step.
FAIL: STAGE:STATUS, the stage that ends with this status, after saying why. ONLY: the stage that takes STEPS steps; the
others take one. SAVES: names, with spaces between, of what a stage that is asked to end puts among its checkpoints.
HANGS: such a stage does not end. GATE: least win rate that the evaluation is to have found, where it found 0.75. The
stage `gates` is the real one.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from podium.config import STAGE_TABLE, PodiumConfig, stage_config
from podium.errors import ExitCode, GatesFailed
from podium.evaluation.verdict import check_gates, gate_reason
from podium.stages import gates
from podium.stages.executor import read_task, write_output
from podium.stages.io import Result, StageIO
from podium.stages.manifest import task_key
from podium.stages.runner import run_stage
from podium.storage.files import write_text


def main() -> int:
    """Do a stage's steps, each kept as a checkpoint, and report its outputs to KFP."""
    stage, flag, text = sys.argv[1:]
    assert flag == "--executor-input"
    failing, _, status = os.environ.get("STAND_IN_FAIL", "").partition(":")
    if stage == failing:
        print(f"{stage}: the stand-in was told to fail", file=sys.stderr)
        return int(status)
    task = read_task(text)
    try:
        result, skipped = run_stage(stage, task.config, task.io, run=partial(work, stage), earlier="orchestrated")
    except GatesFailed as failure:
        print(failure, file=sys.stderr)
        return ExitCode.GATES_FAILED
    if skipped:
        record(f"{stage} skipped")
    write_output(task, result)
    return 0


def work(stage: str, config: PodiumConfig, io: StageIO) -> Result:
    """Count to STEPS, going on from the count that is there, and write outputs that tell from what they were made."""
    spec = STAGE_TABLE[stage]
    checkpoint = Path(io.work(next(name for name in spec.outputs if name not in spec.files)), "step")
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    signal.signal(signal.SIGTERM, lambda *_: end(stage, checkpoint.parent))
    record(f"{stage} started at {done}")
    steps = int(os.environ.get("STAND_IN_STEPS", "1")) if os.environ.get("STAND_IN_ONLY", stage) == stage else 1
    for step in range(done, steps):
        time.sleep(float(os.environ.get("STAND_IN_SLEEP", "0")))
        write_text(checkpoint, str(step + 1))
    if stage == "gates":
        return gates.run(config, io)
    made_from = task_key(stage, stage_config(config, stage), io.input_digests())
    for name in spec.outputs:
        path = io.output(name)
        if name in spec.files:
            path.write_text("<html>report</html>")
        elif name == "samples":
            (path / "results.json").write_text(json.dumps(results(made_from)))
        elif name != "metrics":
            (path / "content").write_text(made_from)
    return Result({"win_rate": 0.75} if stage == "evaluate" else {})


def end(stage: str, folder: Path) -> None:
    """Leave as a stage does on SIGTERM."""
    record(f"{stage} was asked to end")
    while "STAND_IN_HANGS" in os.environ:
        signal.pause()
    for name in os.environ.get("STAND_IN_SAVES", "").split():
        (folder / "checkpoints" / name).mkdir(parents=True)
        record(f"{stage} saved {name}")
    sys.exit(ExitCode.STOPPED)


def results(made_from: str) -> dict[str, object]:
    """Return what results.json holds, as far as it is looked at behind the evaluation."""
    least = float(os.environ.get("STAND_IN_GATE", "0.5"))
    (gate,) = check_gates({"win_rate": {"value": 0.75, "low": 0.7, "high": 0.8}}, {"min_win_rate": least})
    level = "green" if gate["passed"] else "red"
    reasons = [{"level": level, "text": gate_reason(gate).text}, {"level": "amber", "text": "Only 5 prompts."}]
    answers = {"baseline": "before", "tuned": "after", "reward_baseline": -0.5, "reward_tuned": 1.25}
    examples = [{"prompt": f"question [b]{row}[/b]", **answers} for row in range(3)]
    return {
        "made_from": made_from,
        "gates": [gate],
        "gates_passed": gate["passed"],
        "summary": {"verdict": level, "headline": "Better on 5 prompts.", "reasons": reasons, "examples": examples},
    }


def record(event: str) -> None:
    """Add a line to the test's log."""
    with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
        file.write(event + "\n")


if __name__ == "__main__":
    sys.exit(main())
