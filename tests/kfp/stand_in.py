"""A program with the protocol of `podium STAGE --executor-input JSON` and no work in it.

It lets a test see what the orchestrator starts, in which order and with what, kill it in the middle, and start it
again, in a second instead of a minute. What it does is read from STAND_IN_* variables:

LOG: file that gets one line per event. STEPS: how many steps a stage takes. SLEEP: seconds per step.
FAIL: STAGE:STATUS, the stage that ends with this status, after saying why.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Do a stage's steps, each kept as a checkpoint, and report its outputs to KFP."""
    stage, flag, text = sys.argv[1:]
    assert flag == "--executor-input"
    executor_input = json.loads(text)
    log = Path(os.environ["STAND_IN_LOG"])
    failing, _, status = os.environ.get("STAND_IN_FAIL", "").partition(":")
    outputs = {name: item["artifacts"][0] for name, item in executor_input["outputs"]["artifacts"].items()}
    folder = Path(executor_input["outputs"]["outputFile"]).parent
    if (folder / "manifest.json").exists():
        record(log, f"{stage} skipped")
    else:
        train(stage, folder, log)
        for name, artifact in outputs.items():
            write_artifact(stage, name, artifact, executor_input)
    if stage == failing:
        print(f"{stage}: the stand-in was told to fail", file=sys.stderr)
        return int(status)
    (folder / "manifest.json").write_text("{}")
    report = {
        name: {"artifacts": [{**artifact, "metadata": metadata(stage, name)}]} for name, artifact in outputs.items()
    }
    Path(executor_input["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": report}))
    return 0


def train(stage: str, folder: Path, log: Path) -> None:
    """Count to STEPS, going on from the count in the folder."""
    checkpoint = folder / "step"
    folder.mkdir(parents=True, exist_ok=True)
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    record(log, f"{stage} started at {done}")
    for step in range(done, int(os.environ.get("STAND_IN_STEPS", "1"))):
        time.sleep(float(os.environ.get("STAND_IN_SLEEP", "0")))
        checkpoint.write_text(str(step + 1))
    print(f"{stage} is working")


def write_artifact(
    stage: str, name: str, artifact: dict[str, object], executor_input: dict[str, dict[str, object]]
) -> None:
    """Write an output whose content is what the stage got, so that a changed input changes it."""
    path = Path(str(artifact["uri"]))
    if name == "report":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<html>report</html>")
        return
    path.mkdir(parents=True, exist_ok=True)
    got = executor_input["inputs"].get("parameterValues", {})
    (path / "manifest.json").write_text(json.dumps({"stage": stage, "output": name, "got": got}))
    if name == "samples":
        rows = [
            {
                "id": str(row),
                "prompt": [{"role": "user", "content": f"question [b]{row}[/b]"}],
                "baseline": "before",
                "tuned": "after",
                "reward_baseline": -0.5,
                "reward_tuned": 1.25,
            }
            for row in range(5)
        ]
        (path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def metadata(stage: str, name: str) -> dict[str, float]:
    """Return what the UI shows of an artifact."""
    return {"win_rate": 0.75} if (stage, name) == ("evaluate", "metrics") else {}


def record(log: Path, event: str) -> None:
    """Add a line to the test's log."""
    with log.open("a") as file:
        file.write(event + "\n")


if __name__ == "__main__":
    sys.exit(main())
