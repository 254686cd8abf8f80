"""Gates: what the thresholds of the config mean for the run, as the last stage's exit code.

It reads what `evaluate` found and computes nothing. It stands behind `export`, so that a run whose gates failed has its
report and its model all the same, and ends with 3 (`podium.errors.ExitCode`) where evaluation.gates.on_failure is fail.

Metrics: gates_passed, and gate/NAME for each configured gate; 1 passed, 0 failed.
"""

import sys

from podium.config import PodiumConfig
from podium.errors import GatesFailed
from podium.evaluation import results
from podium.evaluation.verdict import gate_reason
from podium.stages.io import Result, StageIO
from podium.stages.run_record import leave_with_run


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Judge a run by its gates.

    Raises:
        GatesFailed: A gate failed, and the config says that this fails the run.
        UserError: The samples hold no results.
    """
    samples = io.input("samples")
    result = results.read(samples)
    leave_with_run("gates", samples, io.input("report") if "report" in io.inputs else None)
    failed = "\n".join(gate_reason(gate).text for gate in result["gates"] if not gate["passed"])
    if failed and config.evaluation.gates.on_failure == "fail":
        raise GatesFailed(failed)
    if failed:
        print(f"podium gates: failed, and evaluation.gates.on_failure is warn:\n{failed}", file=sys.stderr)
    passed = {f"gate/{gate['name']}": float(gate["passed"]) for gate in result["gates"]}
    return Result(metrics={"gates_passed": float(result["gates_passed"]), **passed})
