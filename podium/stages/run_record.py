"""What a run on a cluster leaves where those read it who hold none of its artifacts: STORAGE/runs/RUN.

STORAGE (a path or URI) and RUN (the run's name) are environment variables, because Kubeflow's cache key of a task must
not hold what differs from run to run.
"""

import os
import shutil
import sys
from pathlib import Path

from podium.errors import UserError
from podium.evaluation.results import RESULTS_FILE, SUMMARY_FILE
from podium.storage import remote

REPORT = "report.html"


def leave_with_run(stage: str, samples: Path, report: Path | None) -> None:
    """Copy results.json, summary.md and the report to STORAGE/runs/RUN, where both variables are given.

    What cannot be copied is said and fails nothing: each file is part of an artifact too.
    """
    storage, run = os.environ.get("STORAGE"), os.environ.get("RUN")
    if not storage or not run:
        return
    folder = f"{storage.rstrip('/')}/runs/{run}"
    files = {name: samples / name for name in (RESULTS_FILE, SUMMARY_FILE)} | ({REPORT: report} if report else {})
    for name, source in files.items():
        try:
            _copy(source, f"{folder}/{name}", name)
        except (UserError, OSError) as error:
            print(f"podium {stage}: note: {folder}/{name} was not written: {error}", file=sys.stderr)


def _copy(source: Path, place: str, name: str) -> None:
    if remote.is_remote(place):
        remote.upload_file(source, place, name)
        return
    path = remote.local_path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
