"""Which run a policy comes from: the header of its report."""

import os
from datetime import UTC, datetime
from pathlib import Path

from podium.evaluation.report import Run
from podium.stages.io import StageIO, read_manifest
from podium.training.metrics import METRICS_FILE, read_metrics

# What submit and run call a run; no part of any cache key.
RUN_VARIABLE = "RUN"


def run_of(io: StageIO) -> Run:
    """Read from the policy and the reward model when they were trained, for how long and on what.

    The time is from the first logged step to the last of each, so that the same inputs give the same page.
    """
    times = [_times(io.input(name)) for name in ("reward_model", "policy")]
    manifest = read_manifest(io.input("policy"))
    described = {} if manifest is None else manifest.metadata.get("policy", {})
    last = times[-1][-1:]
    return Run(
        name=os.environ.get(RUN_VARIABLE),
        finished=f"{datetime.fromtimestamp(last[0], UTC):%Y-%m-%d %H:%M} UTC" if last else None,
        seconds=sum(result[-1] - result[0] for result in times if result) if last else None,
        hardware=described.get("hardware"),
    )


def _times(model: Path) -> list[float]:
    rows = read_metrics(model) if (model / METRICS_FILE).is_file() else []
    return [float(row["time"]) for row in rows if row.get("time") is not None]
