"""`podium run`: the compiled pipeline through KFP's local orchestrator, with stages that only keep count."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from podium.config import STAGES, load_config
from podium.evaluation.verdict import check_gates, gate_reason
from podium.stages.manifest import read_manifest
from support.pipeline_runs import Runs, make_runs

# Without a section sft.
PLAIN = tuple(stage for stage in STAGES if stage != "sft")


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def alive(fragment: str) -> list[str]:
    """Return the command lines of running processes that hold a text."""
    commands = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(entry.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in commands if fragment in command and "stand_in" in command]


@dataclass(frozen=True)
class Finished:
    """A run that went well, and what it printed."""

    runs: Runs
    status: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run a pipeline once for the tests that only look at its results."""
    runs = make_runs(tmp_path_factory.mktemp("finished"))
    return Finished(runs, *runs.finish("ppo.max_steps=7"))


def test_every_stage_runs_once_in_order(finished: Finished) -> None:
    assert (finished.status, finished.errors) == (0, "")
    assert finished.runs.events == [f"{stage} started at 0" for stage in PLAIN]
    headers = [line for line in finished.output.splitlines() if line.startswith("[")]
    assert headers == [f"[{number}/7] {stage}" for number, stage in enumerate(PLAIN, 1)]


def test_a_section_sft_makes_a_stage_from_which_the_others_start(runs: Runs) -> None:
    (runs.folder / "shown.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    with_sft = (f"data.demonstrations={runs.folder}/shown.jsonl", "sft={}")
    status, output, errors = runs.finish(*with_sft)
    assert (status, errors) == (0, "")
    assert runs.events == [f"{stage} started at 0" for stage in STAGES]
    headers = [line for line in output.splitlines() if line.startswith("[")]
    assert headers == [f"[{number}/8] {stage}" for number, stage in enumerate(STAGES, 1)]
    for stage, output_name, name in (("reward", "reward_model", "model"), ("export", "model", "base")):
        manifest = read_manifest(runs.out / stage / output_name)
        model = read_manifest(runs.out / "sft" / "model")
        assert manifest is not None and model is not None
        assert manifest.inputs[name] == model.digest
    runs.finish(*with_sft, "sft.max_steps=3")
    again = runs.events[len(STAGES) :]
    assert again == ["prepare skipped", *(f"{stage} started at 0" for stage in STAGES[1:])]


def test_the_results_are_shown(finished: Finished) -> None:
    output, out = finished.output, finished.runs.out
    assert f"Report  {out}/report.html" in output
    assert f"Model   {out}/export/model" in output
    assert output.count("Before  before (reward -0.50)") == 3
    assert "green   Better on 5 prompts.\namber   Only 5 prompts.\n\nReport" in output
    assert "Prompt  question [b]2[/b]" in output
    assert output.splitlines()[-1].startswith("Done in ")


def test_kfp_itself_says_nothing(finished: Finished) -> None:
    assert "finished with status" not in finished.output
    assert "finished with status" in (finished.runs.out / "kfp.log").read_text()


def test_outputs_lie_under_the_stage_and_the_resolved_config_beside_them(finished: Finished) -> None:
    out = finished.runs.out
    assert (out / "reward" / "reward_model" / "manifest.json").exists()
    resolved = load_config(out / "config.yaml")
    assert (resolved.ppo.max_steps, resolved.reward.lora) == (7, None)
    assert resolved.data.prompts[0].path == str(finished.runs.folder / "prompts.jsonl")
    assert yaml.safe_load((out / "pipeline.yaml").read_text())["pipelineInfo"]["name"] == "rlhf"


def test_a_finished_run_does_no_stage_again(runs: Runs) -> None:
    runs.finish()
    runs.finish()
    assert runs.events[len(PLAIN) :] == [f"{stage} skipped" for stage in PLAIN]


def test_damage_is_made_again_and_is_no_dead_end(runs: Runs) -> None:
    """A bit of one result, the manifest of another, half of a third: each is made again as it was, and nothing else."""
    runs.finish()
    content = runs.out / "reward" / "reward_model" / "content"
    content.write_text(content.read_text()[:-1] + "x")
    (runs.out / "sample" / "candidates" / "manifest.json").unlink()
    manifest = runs.out / "prepare" / "prompts" / "manifest.json"
    manifest.write_text(manifest.read_text()[:99])
    before = len(runs.events)
    status, _, errors = runs.finish()
    assert (status, errors) == (0, "")
    assert [event for event in runs.events[before:] if "started" in event] == [
        "prepare started at 0",
        "reward started at 0",
        "sample started at 0",
    ]
    before = len(runs.events)
    runs.finish()
    assert not [event for event in runs.events[before:] if "started" in event]


def test_a_run_that_was_killed_goes_on_where_it_was(runs: Runs) -> None:
    process = runs.start(STEPS="400", SLEEP="0.02")
    step = runs.out / "prepare" / "preferences" / ".work" / "step"
    wait_until(lambda: step.exists() and int(step.read_text()) >= 3)
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(str(runs.out)))
    reached = int(step.read_text())
    assert runs.finish(STEPS="400")[0] == 0
    assert 3 <= reached < 400
    assert runs.events[:2] == ["prepare started at 0", f"prepare started at {reached}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_stage_too(runs: Runs, number: signal.Signals) -> None:
    process = runs.start(STEPS="1000", SLEEP="0.05")
    wait_until(lambda: bool(runs.events))
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == "Stopped. The same command goes on from the start of prepare.\n"
    assert runs.events == ["prepare started at 0", "prepare was asked to end"]
    assert not alive(str(runs.out))


def test_a_run_that_is_stopped_waits_for_the_stage_and_says_where_it_goes_on(runs: Runs) -> None:
    """A stage saves on SIGTERM: here a checkpoint of step 40, the highest that is whole."""
    process = runs.start(STEPS="1000", SLEEP="0.05", SAVES="9 40 41.orbax-checkpoint-tmp-0", ONLY="ppo")
    wait_until(lambda: "ppo started at 0" in runs.events)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert output.splitlines()[-1] == (
        "Stopping: ppo ends its step and saves, within 2 minutes; Ctrl-C again ends it at once."
    )
    assert errors == "Stopped. The same command goes on from step 40 of ppo.\n"
    assert (
        runs.events[-2:]
        == ["ppo was asked to end", "ppo saved 9", "ppo saved 40", "ppo saved 41.orbax-checkpoint-tmp-0"][-2:]
    )


def test_a_second_signal_ends_the_stage_at_once(runs: Runs) -> None:
    process = runs.start(STEPS="1000", SLEEP="0.05", SAVES="1", HANGS="1")
    wait_until(lambda: bool(runs.events))
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "prepare was asked to end" in runs.events)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "prepare saved 1" not in runs.events
    assert not alive(str(runs.out))


@pytest.mark.parametrize(("status", "expected"), [(2, 2), (1, 1), (7, 1), (3, 1)])
def test_a_failed_stage_has_the_last_word(runs: Runs, status: int, expected: int) -> None:
    got, output, errors = runs.finish(FAIL=f"reward:{status}")
    assert (got, errors) == (expected, "reward: the stand-in was told to fail\n")
    assert output.splitlines()[-1] == "[2/7] reward"


def test_a_stage_that_was_stopped_is_started_again(runs: Runs) -> None:
    status, _, errors = runs.finish(FAIL="reward:75")
    assert status == 75
    assert errors.splitlines()[-1] == "The same command goes on from the start of reward."


def test_a_stage_that_a_signal_ended_is_spoken_for(runs: Runs) -> None:
    process = runs.start(STEPS="1000", SLEEP="0.05")
    wait_until(lambda: bool(runs.events))
    pid = next(
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if b"stand_in" in entry.read_bytes() and str(runs.out).encode() in entry.read_bytes()
    )
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == (
        "prepare was ended by SIGKILL: is there enough memory? The same command goes on from the start of prepare.\n"
    )


def test_two_runs_never_share_a_folder(runs: Runs) -> None:
    first = runs.start(STEPS="1000", SLEEP="0.05")
    wait_until(lambda: bool(runs.events))
    status, _, errors = runs.finish()
    first.terminate()
    first.communicate(timeout=30)
    assert status == 2
    assert errors == (
        f"Error: another run (process {first.pid}) is using --out {runs.out}; "
        "wait for it, stop it, or name another folder\n"
    )


def test_files_that_no_run_wrote_are_not_replaced(runs: Runs) -> None:
    runs.out.mkdir()
    (runs.out / "config.yaml").write_text("mine")
    status, _, errors = runs.finish()
    assert (status, (runs.out / "config.yaml").read_text()) == (2, "mine")
    assert errors == (
        f"Error: --out {runs.out} holds 'config.yaml', which no run wrote; name a new or an empty folder\n"
    )


def test_an_out_that_is_a_file_is_refused(runs: Runs) -> None:
    runs.out.write_text("")
    status, _, errors = runs.finish()
    assert (status, errors) == (
        2,
        f"Error: --out {runs.out}: something else is there already; name another path\n",
    )


def test_a_container_gets_the_run_folder_and_the_data(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called docker on the path that runs what comes after the image, as Docker would."""
    docker = runs.folder / "bin" / "docker"
    docker.parent.mkdir()
    stand_in = Path(__file__).with_name("stand_in.py")
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {runs.folder}/docker.log\n[ "$1" = rm ] && exit 0\n'
        'while [ "$1" != python ]; do shift; done\nshift 3\n'
        f'exec {sys.executable} {stand_in} "$@"\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    status, _, errors = runs.finish("platform.image=podium/trainer:test", options=["--runner", "docker"])
    assert (status, errors) == (0, "")
    calls = (runs.folder / "docker.log").read_text().splitlines()
    run = next(call for call in calls if call.startswith("run"))
    assert f"--network host --user {os.getuid()}:{os.getgid()}" in run
    assert f"--volume {runs.out}:{runs.out} " in run
    assert f"--volume {runs.folder}/prompts.jsonl:{runs.folder}/prompts.jsonl:ro" in run
    assert "podium/trainer:test python -m podium prepare --executor-input {" in run
    names = {call.split("--name ")[1].split()[0] for call in calls if call.startswith("run")}
    assert len(names) == len(PLAIN) and all(f"rm --force {name}" in calls for name in names)


def test_docker_that_is_missing_is_said(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(runs.folder))
    status, _, errors = runs.finish(options=["--runner", "docker"])
    assert (status, errors) == (
        2,
        "Error: --runner docker needs the docker command; install Docker or leave --runner out\n",
    )


def test_a_child_outlives_no_killed_parent(runs: Runs) -> None:
    process = runs.start(STEPS="1000", SLEEP="0.05")
    wait_until(lambda: bool(alive(str(runs.out))))
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(str(runs.out)))
    assert process.returncode == -signal.SIGKILL


def test_output_goes_where_the_run_sends_its_own(runs: Runs) -> None:
    """A stage writes to the run's own output, not through it: a bar on a terminal stays a bar."""
    process = runs.start(STEPS="1000", SLEEP="0.05")
    wait_until(lambda: bool(alive(str(runs.out))))
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    child = children.stdout.split()[0]
    same = os.readlink(f"/proc/{child}/fd/1") == os.readlink(f"/proc/{process.pid}/fd/1")
    process.terminate()
    process.communicate(timeout=30)
    assert same


FOUND = {"win_rate": {"value": 0.75, "low": 0.7, "high": 0.8}}
GATE_FAILED = gate_reason(*check_gates(FOUND, {"min_win_rate": 0.9})).text


def test_failed_gates_end_the_run_with_3_behind_report_and_model(runs: Runs) -> None:
    status, output, errors = runs.finish(GATE="0.9")
    assert (status, errors) == (3, GATE_FAILED + "\n")
    assert f"red     Better on 5 prompts.\nred     {GATE_FAILED}\namber   Only 5 prompts.\n\nReport" in output
    assert f"Model   {runs.out}/export/model\nGates   failed, and so does the run (exit code 3)" in output
    assert (runs.out / "report.html").exists() and (runs.out / "export" / "model" / "manifest.json").exists()


def test_a_run_whose_gates_failed_redoes_nothing_and_fails_again(runs: Runs) -> None:
    runs.finish(GATE="0.9")
    assert runs.finish(GATE="0.9")[0] == 3
    assert runs.events[len(PLAIN) :] == [*(f"{stage} skipped" for stage in PLAIN[:-1]), "gates started at 0"]


def test_failed_gates_can_be_allowed_without_doing_anything_again(runs: Runs) -> None:
    runs.finish(GATE="0.9")
    status, output, errors = runs.finish(GATE="0.9", options=["--allow-failed-gates"])
    assert status == 0
    assert errors == f"podium gates: failed, and evaluation.gates.on_failure is warn:\n{GATE_FAILED}\n"
    assert "Gates   failed, which fails no run under evaluation.gates.on_failure: warn" in output
    assert runs.events[len(PLAIN) :] == [*(f"{stage} skipped" for stage in PLAIN[:-1]), "gates started at 0"]
    assert runs.finish(GATE="0.9")[0] == 3, "it was allowed once"
