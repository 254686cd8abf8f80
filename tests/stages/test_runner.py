"""Inputs, outputs, manifests: complete or not there, skipped when equal, never half of one and half of another.

The stages here are a few lines each: what is under test is what surrounds every stage.
Seen to fail: with the manifest written first; with the key left out of the comparison; with the output not emptied;
with checkpoints kept for another config; with the folder emptied whoever wrote it; with `is_complete` looking for the
manifest alone.
"""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from podium.config import STAGE_TABLE, PodiumConfig
from podium.errors import UserError
from podium.stages.io import Result, StageIO, is_complete, read_manifest, write_manifest
from podium.stages.runner import run_stage
from support.small_stage import Killed, Stage, config, evaluate_inputs
from support.stores import in_memory


@pytest.fixture(name="evaluate_inputs")
def _evaluate_inputs(tmp_path: Path) -> dict[str, str]:
    return evaluate_inputs(tmp_path / "in")


def test_every_output_folder_gets_a_manifest_that_lists_its_files(tmp_path: Path, evaluate_inputs: Any) -> None:
    Stage("evaluate").run(StageIO.local(tmp_path / "out", **evaluate_inputs))
    manifest = json.loads((tmp_path / "out" / "samples" / "manifest.json").read_text())
    # sha256sum of "0\n" and of "<html></html>"
    zero = "9a271f2a916b0b6ee6cecb2426f0b3206ef074578be55d9bc94f6f3fe3ab86aa"
    page = "b633a587c652d02386c4f16f8c6f6aab7352d97f16367c3c40576214372dd628"
    assert manifest["files"] == {"deep/rows.jsonl": {"size": 2, "sha256": zero}}
    assert manifest["siblings"] == {"report": {"size": 13, "sha256": page}}
    assert manifest["stage"] == "evaluate"
    assert manifest["config"]["model"]["name_or_path"] == "some/model"
    assert set(manifest["inputs"]) == {"policy", "candidates", "reward_model"}
    assert {"python", "jax"} <= manifest["versions"].keys()
    assert json.loads((tmp_path / "out" / "metrics" / "metrics.json").read_text()) == {"accuracy": 0.75}
    assert is_complete(tmp_path / "out" / "metrics")
    assert not list((tmp_path / "out").rglob(".work"))


def test_equal_config_and_inputs_are_not_run_again_and_report_the_same(tmp_path: Path, evaluate_inputs: Any) -> None:
    stage = Stage("evaluate")
    io = StageIO.local(tmp_path / "out", **evaluate_inputs)
    first, skipped_first = stage.run(io)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again, skipped_again = stage.run(StageIO.local(tmp_path / "out", **evaluate_inputs))
    assert (stage.runs, skipped_first, skipped_again) == (1, False, True)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def change_config(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    return config(seed=1)


def change_input(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    Path(inputs["policy"], "file").write_text("other")
    return config()


def lose_a_file(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    (out / "samples" / "deep" / "rows.jsonl").unlink()
    return config()


def cut_a_file_short(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    (out / "samples" / "deep" / "rows.jsonl").write_text("")
    return config()


def lose_the_page(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    (out / "report").unlink()
    return config()


def change_the_page(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    (out / "report").write_text("<html>other")
    return config()


def lose_a_manifest(out: Path, inputs: dict[str, str]) -> PodiumConfig:
    (out / "metrics" / "manifest.json").unlink()
    (out / "metrics" / "metrics.json").unlink()
    return config()


@pytest.mark.parametrize(
    "change",
    [change_config, change_input, lose_a_file, cut_a_file_short, lose_the_page, change_the_page, lose_a_manifest],
)
def test_whatever_changed_is_run_again_from_clean(tmp_path: Path, evaluate_inputs: Any, change: Any) -> None:
    stage = Stage("evaluate")
    out = tmp_path / "out"
    stage.run(StageIO.local(out, **evaluate_inputs))
    settings = change(out, evaluate_inputs)
    (out / "samples" / "stale.txt").write_text("left over")
    _, skipped = stage.run(StageIO.local(out, **evaluate_inputs), settings)
    assert (stage.runs, skipped) == (2, False)
    assert not (out / "samples" / "stale.txt").exists()
    assert (out / "samples" / "deep" / "rows.jsonl").read_text() == f"{settings.seed}\n"
    assert is_complete(out / "samples")


def test_sections_that_a_stage_does_not_read_leave_its_result_alone(tmp_path: Path, evaluate_inputs: Any) -> None:
    stage = Stage("evaluate")
    stage.run(StageIO.local(tmp_path, **evaluate_inputs))
    stage.run(StageIO.local(tmp_path, **evaluate_inputs), config(reward={"save_steps": 3}, platform={"image": "x"}))
    assert stage.runs == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, [True, False]),
        ({}, {"seed": 1}, [False, False]),
        ({}, {"ppo": {"save_steps": 1, "save_minutes": 0.5}}, [True, False]),
        ({}, {"ppo": {"logging_steps": 2}}, [False, False]),
        ({"ppo": {"resume": "never"}}, {"ppo": {"resume": "never"}}, [False, False]),
    ],
)
def test_a_killed_run_is_continued_by_the_same_task_only(
    tmp_path: Path, first: Any, second: Any, expected: list[bool]
) -> None:
    for name in ("prompts", "reward_model"):
        (tmp_path / name).mkdir()
    io = StageIO.local(tmp_path / "out", prompts=tmp_path / "prompts", reward_model=tmp_path / "reward_model")
    with pytest.raises(Killed):
        Stage("ppo", Killed()).run(io, config(**first))
    assert not is_complete(tmp_path / "out" / "policy")
    again = Stage("ppo")
    again.run(io, config(**second))
    assert again.found_work == expected
    assert is_complete(tmp_path / "out" / "policy")


def test_a_folder_that_no_stage_wrote_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "out" / "data_report" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(UserError, match=r"output data_report: .* holds files that no stage wrote; name a new or an em"):
        Stage("prepare").run(StageIO.local(tmp_path / "out"))
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_the_users_to_mend_and_leaves_nothing_complete(tmp_path: Path, wrapped: bool) -> None:
    full: Exception = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    if wrapped:
        full = RuntimeError(f"SafetensorError: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")
    io = StageIO.local(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        Stage("prepare", full).run(io)
    assert (
        str(caught.value) == f"{tmp_path}/out: no space left on the disk; free some, or name an output on another one"
    )
    assert not list(tmp_path.rglob("manifest.json"))
    assert Stage("prepare").run(io)[1] is False


def test_another_fault_stays_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Stage("prepare", ZeroDivisionError()).run(StageIO.local(tmp_path))
    assert not list(tmp_path.rglob("manifest.json"))


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out/preferences: cannot be written: Not a directory; name an output"):
        Stage("prepare").run(StageIO.local(tmp_path / "file" / "out"))


def test_a_stage_that_forgets_an_output_is_our_fault(tmp_path: Path) -> None:
    for name in STAGE_TABLE["evaluate"].inputs:
        (tmp_path / name).mkdir()
    io = StageIO.local(tmp_path / "out", **{name: tmp_path / name for name in STAGE_TABLE["evaluate"].inputs})
    with pytest.raises(RuntimeError, match="stage evaluate wrote no output report"):
        run_stage("evaluate", config(), io, run=lambda config, io: Result(), say=lambda text: None)
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_a_metric_that_is_not_a_number_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_stage(
            "prepare",
            config(),
            StageIO.local(tmp_path),
            run=lambda config, io: Result({"loss": float("nan")}),
            say=lambda text: None,
        )
    assert not list(tmp_path.rglob("manifest.json"))


def test_inputs_are_checked_before_use(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    (good / "weights").write_text("12345")
    write_manifest(good, stage="reward", config=config(), inputs={})
    assert is_complete(good)
    assert StageIO({"policy": str(good)}, {}).input("policy") == good
    with pytest.raises(UserError, match="input reward_model is missing; write --input reward_model=PATH"):
        StageIO({"policy": str(good)}, {}).input("reward_model")
    with pytest.raises(UserError, match="output report is missing; write --output report=PATH"):
        StageIO({}, {}).output("report")
    with pytest.raises(UserError, match=r"input policy: there is nothing at .*absent; name what the earlier stage"):
        StageIO({"policy": str(tmp_path / "absent")}, {}).input("policy")
    (good / "weights").write_text("12346")
    assert not is_complete(good)
    with pytest.raises(UserError, match=r"input policy: .*another content than .* start podium reward again"):
        StageIO({"policy": str(good)}, {}).input("policy")
    (good / "weights").write_text("123")
    assert not is_complete(good)
    with pytest.raises(UserError, match=r"input policy: .*weights has 3 bytes instead of 5; copy it again"):
        StageIO({"policy": str(good)}, {}).input("policy")
    (good / "weights").unlink()
    with pytest.raises(UserError, match=r"input policy: .*weights is missing; copy it again"):
        StageIO({"policy": str(good)}, {}).input("policy")
    (good / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        StageIO({"policy": str(good)}, {}).input("policy")
    (good / "manifest.json").write_text('{"stage": "x"}')
    with pytest.raises(UserError, match=r"manifest\.json: is not a manifest of Podium"):
        StageIO({"policy": str(good)}, {}).input("policy")


def test_an_input_that_its_stage_never_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Stage("prepare", Killed()).run(StageIO.local(tmp_path))
    with pytest.raises(UserError, match=r"preferences: .* is not complete \(no manifest\.json\); start podium prepare"):
        StageIO({"preferences": str(tmp_path / "preferences")}, {}).input("preferences")


def test_a_changed_data_file_prepares_again(tmp_path: Path) -> None:
    data, stage = tmp_path / "a.jsonl", Stage("prepare")
    settings = config(data={"preferences": [str(data), str(tmp_path / "parts" / "*.jsonl")]})
    for text in ("1", "1", "2"):
        data.write_text(text)
        stage.run(StageIO.local(tmp_path / "out"), settings)
    assert stage.runs == 2
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.jsonl").write_text("")
    stage.run(StageIO.local(tmp_path / "out"), settings)
    assert stage.runs == 3


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_a_changed_data_file_in_a_folder_with_brackets_prepares_again(tmp_path: Path, address: str) -> None:
    """Only * and ? are patterns. Seen to fail with brackets as patterns, and with file:// left on."""
    folder, stage = tmp_path / "data [v2]", Stage("prepare")
    folder.mkdir()
    for name in ("*.jsonl", "a.jsonl"):
        settings = config(data={"preferences": [address.format(folder / name)]})
        for text in ("1", "1", "2"):
            (folder / "a.jsonl").write_text(text)
            stage.run(StageIO.local(tmp_path / "out"), settings)
    assert stage.runs == 4


def test_what_is_no_data_file_is_left_to_the_stage_and_not_read(tmp_path: Path) -> None:
    """A digest of a pipe never ends, one of a folder may be of the whole disk; the stage refuses both."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.jsonl" / "x").write_text("1")
    places = [str(tmp_path / "pipe.jsonl"), str(tmp_path / "*.jsonl"), str(tmp_path / "folder.jsonl"), "/dev/zero"]
    stage = Stage("prepare")
    stage.run(StageIO.local(tmp_path / "out"), config(data={"preferences": places}))
    (tmp_path / "folder.jsonl" / "x").write_text("2")
    stage.run(StageIO.local(tmp_path / "out"), config(data={"preferences": places}))
    assert stage.runs == 1


def test_an_optional_input_is_part_of_the_task_and_stands_in_for_the_configured_model(tmp_path: Path) -> None:
    stage = Stage("sample")
    (tmp_path / "prompts").mkdir()
    for name in ("model", "tuned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    settings = config(model={"name_or_path": str(tmp_path / "model")})
    plain = {"prompts": tmp_path / "prompts"}
    given = plain | {"model": tmp_path / "tuned"}
    for inputs in (plain, given, given):
        stage.run(StageIO.local(tmp_path / "out", **inputs), settings)
    assert stage.runs == 2
    # The configured model is not read any more.
    (tmp_path / "model" / "config.json").write_text("[]")
    stage.run(StageIO.local(tmp_path / "out", **given), settings)
    assert stage.runs == 2
    (tmp_path / "tuned" / "config.json").write_text("[]")
    stage.run(StageIO.local(tmp_path / "out", **given), settings)
    assert stage.runs == 3


def test_a_changed_model_of_the_reward_stage_runs_it_again(tmp_path: Path) -> None:
    stage = Stage("reward")
    for name in ("preferences", "judge"):
        (tmp_path / name).mkdir()
    settings = config(reward={"model": {"name_or_path": str(tmp_path / "judge")}})
    for text in ("{}", "{}", "{ }"):
        (tmp_path / "judge" / "config.json").write_text(text)
        stage.run(StageIO.local(tmp_path / "out", preferences=tmp_path / "preferences"), settings)
    assert stage.runs == 2


def test_a_changed_local_model_runs_again(tmp_path: Path) -> None:
    model, stage = tmp_path / "model", Stage("prepare")
    model.mkdir()
    settings = config(model={"name_or_path": str(model)})
    for text in ("{}", "{}", "{ }"):
        (model / "config.json").write_text(text)
        stage.run(StageIO.local(tmp_path / "out"), settings)
    assert stage.runs == 2


@pytest.fixture
def store() -> Iterator[Any]:
    """Return an empty store behind memory:// URIs."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_changed_data_behind_a_uri_prepare_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = in_memory(monkeypatch)
    stage, settings = Stage("prepare"), config(data={"preferences": ["s3://d/a.jsonl", "s3://d/parts/*.jsonl"]})
    store.pipe({"/d/a.jsonl": b"1", "/d/parts/1.jsonl": b"1"})
    for path in (None, "/d/a.jsonl", None, "/d/parts/1.jsonl", "/d/parts/2.jsonl", None):
        if path:
            store.pipe(path, b"2")
        stage.run(StageIO.local(tmp_path / "out"), settings)
    assert stage.runs == 4


def test_a_changed_model_behind_a_uri_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reads of a model's folder changes nothing."""
    store = in_memory(monkeypatch)
    settings = config(model={"name_or_path": "s3://m"})
    stages = {"prepare": Stage("prepare"), "sample": Stage("sample")}
    (tmp_path / "prompts").mkdir()
    store.pipe({"/m/config.json": b"{}", "/m/model.safetensors": b"1"})
    for path in (None, "/m/README.md", "/m/model.safetensors", "/m/config.json"):
        if path:
            store.pipe(path, b"[]")
        for name, stage in stages.items():
            given = {"prompts": tmp_path / "prompts"} if name == "sample" else {}
            stage.run(StageIO.local(tmp_path / name, **given), settings)
    # Reading data takes a model's tokenizer, not its weights.
    assert {name: stage.runs for name, stage in stages.items()} == {"prepare": 2, "sample": 3}


def test_uris_are_copied_in_and_out_with_the_manifest_last(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    puts: list[str] = []
    put_file = store.put_file
    monkeypatch.setattr(type(store), "put_file", lambda self, here, there: (puts.append(there), put_file(here, there)))
    for name in STAGE_TABLE["evaluate"].inputs:
        store.pipe(f"/bucket/{name}/deep/file", name.encode())
    stage = Stage("evaluate")

    def io() -> StageIO:
        return StageIO(
            {name: f"memory://bucket/{name}" for name in STAGE_TABLE["evaluate"].inputs},
            {name: f"memory://bucket/out/{name}" for name in STAGE_TABLE["evaluate"].outputs},
        )

    assert (io().input("policy") / "deep" / "file").read_text() == "policy"
    stage.run(io())
    assert store.cat("/bucket/out/samples/deep/rows.jsonl") == b"0\n"
    assert store.cat("/bucket/out/report") == b"<html></html>"
    assert puts[-2:] == ["/bucket/out/samples/deep/rows.jsonl", "/bucket/out/samples/manifest.json"]
    assert not [name for name in store.find("/bucket") if ".work" in name]
    assert stage.run(io())[1] is True
    store.pipe("/bucket/policy/deep/file", b"changed")
    assert stage.run(io())[1] is False
    assert stage.runs == 2


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("memory://bucket/absent", "input prompts: there is nothing at memory://bucket/absent; name what the earlier"),
        ("nonsense://bucket/x", "nonsense://bucket/x: addresses of nonsense:// are not read; write"),
    ],
)
def test_a_uri_that_leads_nowhere_is_named(store: Any, uri: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        StageIO({"prompts": uri}, {}).input("prompts")
    assert str(caught.value).startswith(expected)


def test_a_store_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uri: str) -> Any:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"gs://bucket/x: needs gcsfs; write: pip install 'podium\[cloud\]'"):
        StageIO({"prompts": "gs://bucket/x"}, {}).input("prompts")


def test_checkpoints_of_a_bucket_are_in_the_bucket() -> None:
    places = {"policy": "gs://bucket/policy/", "model": "gcs://bucket/model", "rollouts": "s3://bucket/rollouts"}
    io = StageIO({}, places | {"samples": "s3a://bucket/samples", "metrics": "hf://models/me/metrics"})
    assert io.work("policy") == "gs://bucket/policy/.work"
    assert io.work("model") == "gs://bucket/model/.work"
    assert io.work("rollouts") == io.aside("/tmp").work("rollouts") == "s3://bucket/rollouts/.work"
    assert io.work("samples") == "s3://bucket/samples/.work"
    with pytest.raises(UserError, match=r"output metrics: hf:// keeps no checkpoints; name a gs:// or s3:// URI"):
        io.work("metrics")


def test_a_manifest_written_twice_has_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "z").write_text("z")
        (folder / "a").write_text("a")
        write_manifest(folder, stage="prepare", config=config(), inputs={"x": "1"})
        texts.append((folder / "manifest.json").read_text())
    assert texts[0] == texts[1]
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    assert (list(manifest.files), manifest.size) == (["a", "z"], 2)
