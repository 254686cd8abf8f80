"""SIGTERM to a process of a stage that has no steps, and so nothing to save, ends all of them."""

import signal
import subprocess
import sys

from podium.errors import ExitCode
from support.gang import ended, free_port

# The stage itself waits to be ended.
PROGRAM = """
import time
import podium.stages.runner
from podium.cli import main

def wait(*_, **__):
    print("started", flush=True)
    time.sleep(60)

podium.stages.runner.run_stage = wait
main()
"""


def test_the_others_hear_of_it() -> None:
    words = ["sample", '--config={"model": {"name_or_path": "base"}}', "--input=prompts=prompts"]
    words += ["--output=candidates=candidates", f"--coordinator=localhost:{free_port()}", "--num-processes=2"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words, f"--process-id={index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        while process.stdout.readline() not in ("started\n", ""):
            pass
    started[1].send_signal(signal.SIGTERM)
    (first, said), (second, _) = ended(started, timeout=60)
    assert (first, second) == (ExitCode.STOPPED, 128 + signal.SIGTERM), said
    assert "process 1 (" in said and ") ended: SIGTERM" in said
