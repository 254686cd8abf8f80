"""Which tasks a cache may serve: those of which every file that they read is in their parameters."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from podium.config import PodiumConfig, load_config_data, stages_of
from podium.config.data import FILE_FIELDS
from podium.errors import UserError
from podium.storage.remote import Unreachable
from podium_pipelines import versions
from podium_pipelines.compiler import compile_text
from support.stores import in_memory, out_of_bounds

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores and the Hub refuse to be asked; a test of `resolved` puts others in their place."""

    def refuse(name: str, revision: str | None) -> str:
        raise AssertionError(f"the Hub was asked for {name}")

    out_of_bounds(monkeypatch)
    monkeypatch.setattr("podium.storage.hub.commit_of", refuse)


def config(model: str = "gs://bucket/model", data: str = "gs://bucket/a.jsonl", **more: Any) -> PodiumConfig:
    files = {"preferences": data, "prompts": data, "demonstrations": data}
    return PodiumConfig.model_validate({"model": {"name_or_path": model}, "data": files, **more})


def compiled(settings: PodiumConfig, known: versions.Versions | None = None) -> tuple[dict[str, Any], set[str]]:
    """Return the versions among a pipeline's parameters and the tasks that are cached."""
    root = yaml.safe_load(compile_text(settings, "vertex", known))["root"]
    values = {name: port.get("defaultValue", "") for name, port in root["inputDefinitions"]["parameters"].items()}
    cached = {name for name, task in root["dag"]["tasks"].items() if task["cachingOptions"].get("enableCache")}
    return {name: value for name, value in values.items() if name.endswith("_version")}, cached


PLAIN = set(stages_of(config()))
JUDGE = {"reward": {"model": {"name_or_path": "gs://bucket/judge"}}}


@pytest.mark.parametrize(
    ("settings", "cached"),
    [
        (config(), set()),
        # Behind sft, artifacts stand for the model.
        (config(sft={}), PLAIN - {"prepare", "gates"}),
        (config(model="/models/in/the/image"), PLAIN - {"prepare", "gates"}),
        (config(model="/models/in/the/image", data="/data/in/the/image.jsonl"), PLAIN - {"gates"}),
        (config(model="/models/in/the/image", data="/data/in/the/image.jsonl", **JUDGE), PLAIN - {"reward", "gates"}),
        (config(model="some/model", data="/data/in/the/image.jsonl"), set()),
    ],
)
def test_compiling_asks_nobody_and_caches_no_task_whose_files_it_cannot_know(
    settings: PodiumConfig, cached: set[str]
) -> None:
    found, got = compiled(settings)
    assert got == cached
    assert set(found.values()) == {""}


def test_a_commit_of_the_hub_is_known() -> None:
    pinned = config(data="/data/in/the/image.jsonl").model_copy(
        update={"model": config().model.model_copy(update={"name_or_path": "some/model", "revision": COMMIT})}
    )
    assert compiled(pinned)[1] == PLAIN - {"gates"}


def test_files_of_this_machine_are_known_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    seen: list[dict[str, Any]] = []
    for data, weights in (("1", "1"), ("2", "1"), ("2", "2")):
        (tmp_path / "a.jsonl").write_text(data)
        (tmp_path / "model" / "model.safetensors").write_text(weights)
        found, cached = compiled(config(str(tmp_path / "model"), str(tmp_path / "*.jsonl")))
        assert cached == PLAIN - {"gates"}
        seen.append(found)
    assert [len({one[name] for one in seen}) for name in ("data_version", "model_version")] == [2, 2]
    assert seen[0]["model_version"] == seen[1]["model_version"] != seen[2]["model_version"]
    assert all(len(value) == 64 for value in seen[0].values())


FILES = tuple(f"data.{name}" for name in FILE_FIELDS)
MODELS = ("model", "reward.model")


@pytest.mark.parametrize("changed", [*FILES, *MODELS])
def test_every_path_that_a_config_names_is_in_a_key(changed: str, tmp_path: Path) -> None:
    paths = {field: tmp_path / field for field in (*FILES, *MODELS)}
    files = {field: path / "config.json" if field in MODELS else path for field, path in paths.items()}
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
        file.write_text("1")
    settings = load_config_data(
        {
            "model": {"name_or_path": str(paths["model"])},
            "reward": {"model": {"name_or_path": str(paths["reward.model"])}},
            "data": {field.partition(".")[2]: str(paths[field]) for field in FILES},
        },
        source="test",
    )
    before = versions.known_here(settings)
    files[changed].write_text("2")
    assert versions.known_here(settings) != before


def test_no_field_names_a_file_beside_those() -> None:
    """Whoever adds one meets this test: what it names belongs into `podium_pipelines.versions`."""
    schema = PodiumConfig.model_json_schema()
    sections = {"": schema, **schema["$defs"]}
    found = {
        f"{section}.{name}"
        for section, part in sections.items()
        for name, field in part.get("properties", {}).items()
        if "path" in name or "/ModelConfig'" in str(field) or "/Source'" in str(field)
    }
    assert found == {
        *("Source.path", "ModelConfig.name_or_path", ".model", "RewardConfig.model"),
        *(f"DataConfig.{name}" for name in FILE_FIELDS),
    }


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an empty store that is behind every URI."""
    return in_memory(monkeypatch)


def test_what_a_store_says_is_a_parameter_of_just_the_tasks_that_read_it(store: Any) -> None:
    store.pipe({"/b/a.jsonl": b"1", "/b/model/config.json": b"{}", "/b/judge/config.json": b"{}"})
    own = {"reward": {"model": {"name_or_path": "gs://b/judge"}}}
    settings = config("gs://b/model", "gs://b/a.jsonl", **own)
    notes: list[str] = []
    before, cached = compiled(settings, versions.resolved(settings, notes.append))
    assert (cached, notes) == (PLAIN - {"gates"}, [])
    for path, name in (("a.jsonl", "data"), ("model/config.json", "model"), ("judge/config.json", "reward_model")):
        store.pipe(f"/b/{path}", b"[]")
        after, _ = compiled(settings, versions.resolved(settings, notes.append))
        assert {key for key in after if after[key] != before[key]} == {f"{name}_version"}
        before = after
    root = yaml.safe_load(compile_text(settings, "vertex"))["root"]["dag"]["tasks"]
    read = {name: {key for key in task["inputs"]["parameters"] if "version" in key} for name, task in root.items()}
    model, data, judge = "model_version", "data_version", "reward_model_version"
    others = {stage: {model} for stage in PLAIN - {"gates"}}
    assert read == others | {"prepare": {model, data}, "reward": {model, judge}, "gates": set()}


def test_what_cannot_be_asked_is_said_and_not_cached(store: Any) -> None:
    store.pipe("/b/a.jsonl", b"1")

    def unreachable(name: str, revision: str | None) -> str:
        raise Unreachable(f"model {name!r}: no network")

    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("podium.storage.hub.commit_of", unreachable)
        settings = config("some/model", "gs://b/a.jsonl", sft={})
        found, cached = compiled(settings, versions.resolved(settings, notes.append))
    assert notes == ["model 'some/model': no network; tasks that read it are not cached"]
    assert cached == set(stages_of(settings)) - {"prepare", "sft", "gates"}
    assert len(found["data_version"]) == 64 and found["model_version"] == ""


def test_the_hub_s_commit_is_the_version_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podium.storage.hub.commit_of", lambda name, revision: f"{name} at {revision} is {COMMIT}")
    settings = config("some/model", "/data/in/the/image.jsonl")
    assert versions.resolved(settings, pytest.fail).model == f"some/model at None is {COMMIT}"


def test_a_place_with_nothing_in_it_is_refused_before_a_run(store: Any) -> None:
    with pytest.raises(UserError, match=r"there is nothing at gs://b/a\.jsonl"):
        versions.resolved(config("/models/in/the/image", "gs://b/a.jsonl"), pytest.fail)
