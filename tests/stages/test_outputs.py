"""Results are kept, refused, made again or taken as they are by what lies where a stage is to write.

Seen to fail: with digests, the seal of a manifest, and the earlier result's place taken out.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from podium.config import STAGE_TABLE, PodiumConfig
from podium.errors import UserError
from podium.stages.io import Result, StageIO, is_complete
from podium.stages.runner import run_stage
from support.small_stage import Killed, Stage, config, evaluate_inputs


@pytest.fixture(name="evaluate_inputs")
def _evaluate_inputs(tmp_path: Path) -> dict[str, str]:
    return evaluate_inputs(tmp_path / "in")


def test_one_changed_bit_is_made_again(tmp_path: Path, evaluate_inputs: Any) -> None:
    """Size and time of the file are as they were: only its contents tell."""
    stage, out, said = Stage("evaluate"), tmp_path / "out", []
    stage.run(StageIO.local(out, **evaluate_inputs))
    damaged = out / "samples" / "deep" / "rows.jsonl"
    state = damaged.stat()
    damaged.write_text("8\n")
    os.utime(damaged, ns=(state.st_atime_ns, state.st_mtime_ns))
    run_stage("evaluate", config(), StageIO.local(out, **evaluate_inputs), run=stage, say=said.append)
    assert (stage.runs, damaged.read_text()) == (2, "0\n")
    assert said == [
        f"podium evaluate: {damaged} has another content than manifest.json notes (sha256); it is made again"
    ]
    # It was no result of another config: nothing is kept.
    assert sorted(path.name for path in out.iterdir()) == ["metrics", "report", "samples"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"accuracy": 0.75', '"accuracy": 0.76'),
        lambda text: text[:-40],
        lambda text: text.replace('"key"', '"kez"'),
        lambda text: text.replace('"size": 2', '"size": "2"'),
        lambda text: text.replace("0", "\x000"),
    ],
)
def test_a_damaged_manifest_is_no_dead_end(tmp_path: Path, evaluate_inputs: Any, damage: Any) -> None:
    stage, manifest = Stage("evaluate"), tmp_path / "out" / "samples" / "manifest.json"
    stage.run(StageIO.local(tmp_path / "out", **evaluate_inputs))
    before = manifest.read_text()
    manifest.write_text(damage(before))
    assert manifest.read_text() != before
    with pytest.raises(UserError, match=r"input samples: .*manifest.json: .*; copy it again, or start podium evaluate"):
        StageIO({"samples": str(manifest.parent)}, {}).input("samples")
    assert stage.run(StageIO.local(tmp_path / "out", **evaluate_inputs))[1] is False
    assert manifest.read_text() == before


def test_a_manifest_of_another_program_is_not_ours_to_remove(tmp_path: Path) -> None:
    page = tmp_path / "out" / "data_report"
    page.mkdir(parents=True)
    (page / "manifest.json").write_text('{"name": "my web page", "short_name": "page"}')
    with pytest.raises(UserError, match=r"output data_report: .* holds files that no stage wrote"):
        Stage("prepare").run(StageIO.local(tmp_path / "out"))
    assert (page / "manifest.json").exists()


def test_nothing_is_written_where_one_output_is_refused(tmp_path: Path, evaluate_inputs: Any) -> None:
    (tmp_path / "out" / "samples").mkdir(parents=True)
    (tmp_path / "out" / "samples" / "thesis.txt").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="holds files that no stage wrote"):
        Stage("evaluate").run(StageIO.local(tmp_path / "out", **evaluate_inputs))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_that_no_stage_wrote_is_left_alone(tmp_path: Path, evaluate_inputs: Any) -> None:
    page = tmp_path / "out" / "report"
    page.parent.mkdir()
    page.write_text("<html>mine")
    with pytest.raises(UserError, match="report is a file that no stage wrote; name another place, or remove it"):
        Stage("evaluate").run(StageIO.local(tmp_path / "out", **evaluate_inputs))
    assert page.read_text() == "<html>mine"


def test_an_orchestrator_is_not_stopped_and_loses_nothing(tmp_path: Path) -> None:
    """Its place is its own, and a lost manifest must not end a run for good."""
    stage, out, said = Stage("prepare"), tmp_path / "out", []

    def run() -> bool:
        return run_stage("prepare", config(), StageIO.local(out), run=stage, earlier="orchestrated", say=said.append)[1]

    run()
    (out / "prompts" / "manifest.json").unlink()
    assert (run(), stage.runs) == (False, 2)
    assert said == [f"kept what was there: {out}/prompts.1"]
    assert (out / "prompts.1" / "deep" / "rows.jsonl").read_text() == "0\n"
    assert run() is True


@pytest.mark.parametrize("earlier", ["keep", "replace"])
def test_the_result_of_another_config_is_kept_unless_it_is_to_be_replaced(
    tmp_path: Path, evaluate_inputs: Any, earlier: Any
) -> None:
    out, said = tmp_path / "out", []
    for seed in (0, 1, 1, 2):
        io = StageIO.local(out, **evaluate_inputs)
        run_stage("evaluate", config(seed=seed), io, run=Stage("evaluate"), earlier=earlier, say=said.append)
    rows = {path.parents[1].name: path.read_text() for path in out.rglob("rows.jsonl")}
    if earlier == "replace":
        assert rows == {"samples": "2\n"}
        return
    assert rows == {"samples": "2\n", "samples.1": "0\n", "samples.2": "1\n"}
    assert all(is_complete(out / f"metrics.{number}") and (out / f"report.{number}").exists() for number in (1, 2))
    assert said[:2] == [
        "podium evaluate: seed 0 -> 1: it is made again",
        f"kept what was there: {out}/report.1, {out}/metrics.1, {out}/samples.1",
    ]
    assert said[2] == "podium evaluate: complete for this config and these inputs; nothing to do"


def test_what_an_interrupted_run_of_another_config_has_done_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Stage("prepare", Killed()).run(StageIO.local(tmp_path / "out"))
    Stage("prepare").run(StageIO.local(tmp_path / "out"), config(seed=1))
    assert (tmp_path / "out" / "preferences.1" / ".work" / "step-1").is_dir()
    # Put back, it goes on.
    (tmp_path / "out" / "preferences").rename(tmp_path / "out" / "other")
    (tmp_path / "out" / "preferences.1").rename(tmp_path / "out" / "preferences")
    again = Stage("prepare")
    again.run(StageIO.local(tmp_path / "out"))
    assert again.found_work[0] is True


def test_a_kill_between_two_manifests_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the first output's checkpoints gone by then, the stage would begin again."""
    for name in ("prompts", "reward_model"):
        (tmp_path / name).mkdir()
    io = StageIO.local(tmp_path / "out", prompts=tmp_path / "prompts", reward_model=tmp_path / "reward_model")
    published: list[str] = []

    def publish(self: StageIO, name: str) -> None:
        published.append(name)
        if published == ["policy", "rollouts"]:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(StageIO, "publish", publish)
        Stage("ppo").run(io)
    (tmp_path / "out" / "rollouts" / "manifest.json.tmp").write_text('{"half')
    again = Stage("ppo")
    again.run(io)
    assert again.found_work == [True, True]
    assert Stage("ppo").run(io)[1] is True


def test_a_second_start_of_a_stage_waits_and_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock each empties what the other writes: a complete manifest over an empty file."""
    monkeypatch.setattr("podium.storage.locks.PATIENCE_S", 0.0)
    stage, refused = Stage("prepare"), []

    def slow(settings: PodiumConfig, io: StageIO) -> Result:
        with pytest.raises(UserError) as caught:
            Stage("prepare").run(StageIO.local(tmp_path / "out"))
        refused.append(str(caught.value))
        # An output at another place does not help where one is shared.
        elsewhere = {name: str(tmp_path / "other" / name) for name in STAGE_TABLE["prepare"].outputs}
        shared = StageIO({}, elsewhere | {"metrics": str(tmp_path / "out" / "metrics")})
        with pytest.raises(UserError):
            Stage("prepare").run(shared)
        return stage(settings, io)

    run_stage("prepare", config(), StageIO.local(tmp_path / "out"), run=slow, say=lambda text: None)
    assert refused == [
        f"output preferences: process {os.getpid()} is writing {tmp_path}/out/preferences; "
        "wait for it, stop it, or name another place"
    ]
    assert Stage("prepare").run(StageIO.local(tmp_path / "out"))[1] is True
    assert not list(tmp_path.rglob(".*.lock"))


def test_what_is_complete_is_taken_from_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stage("prepare").run(StageIO.local(tmp_path / "out"))
    monkeypatch.setattr("podium.stages.runner.held", None)
    assert Stage("prepare").run(StageIO.local(tmp_path / "out"))[1] is True


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "disk" / "preferences").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "preferences").symlink_to(tmp_path / "disk" / "preferences")
    (tmp_path / "out" / "prompts").symlink_to("elsewhere")
    for seed in (0, 1):
        Stage("prepare").run(StageIO.local(tmp_path / "out"), config(seed=seed))
        assert (tmp_path / "out" / "preferences").is_symlink()
        for name in ("disk/preferences", "out/elsewhere"):
            assert (tmp_path / name / "deep" / "rows.jsonl").read_text() == f"{seed}\n"
    assert (tmp_path / "disk" / "preferences.1" / "deep" / "rows.jsonl").read_text() == "0\n"


def test_leftovers_of_killed_processes_go_with_the_next_start(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # No process has this number: Linux counts to 4194304.
    for name in (".preferences.partial-4194305", ".preferences.old"):
        (out / name).mkdir(parents=True)
        (out / name / "model.safetensors").write_text("half of it")
    (out / ".preferences.lock").write_text("4194305")
    Stage("prepare").run(StageIO.local(out))
    assert sorted(path.name for path in out.iterdir()) == sorted(STAGE_TABLE["prepare"].outputs)


def model_folder(folder: Path, text: str = "{}") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_text("weights")
    return folder


def test_a_model_that_was_moved_is_the_same_and_one_in_its_place_is_not(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    stage = Stage("sample")

    def run(model: Path) -> bool:
        settings = config(model={"name_or_path": str(model)})
        return stage.run(StageIO.local(tmp_path / "out", prompts=tmp_path / "prompts"), settings)[1]

    model = model_folder(tmp_path / "model")
    assert run(model) is False
    assert run(model.rename(tmp_path / "moved")) is True
    assert run(model_folder(tmp_path / "model", "[]")) is False


def test_what_no_stage_reads_of_a_model_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    model, stage = model_folder(tmp_path / "model"), Stage("sample")
    (model / ".git").mkdir()
    unread = [model / name for name in ("README.md", ".git/HEAD", "pytorch_model.bin", "optimizer.pt", "SHA256SUMS")]
    read = [model / name for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja")]
    settings = config(model={"name_or_path": str(model)})
    for number, changed in enumerate([*unread, *read]):
        changed.write_text(str(number))
        stage.run(StageIO.local(tmp_path / "out", prompts=tmp_path / "prompts"), settings)
        assert stage.runs == 1 + max(0, number + 1 - len(unread)), changed
    # The same folder as an input is looked at in the same way.
    io = StageIO({"model": str(model)}, {})
    before = io.input_digests()
    (model / ".git" / "HEAD").write_text("other")
    assert StageIO({"model": str(model)}, {}).input_digests() == before
