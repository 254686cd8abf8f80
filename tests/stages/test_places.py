"""One place given twice is refused before anything is touched, however it is written.

Seen to fail: with places compared as written; without the comparison with inputs, and with what the config names; with
a prefix of a name taken for a folder around it.
"""

from pathlib import Path
from typing import Any

import pytest

from podium.config import load_config_data
from podium.errors import UserError
from podium.stages.io import Result, StageIO
from podium.stages.places import refuse_overlaps
from podium.stages.runner import run_stage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a folder `a`, a link `link` to it and a link `up` to the directory itself."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "up").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


SAME = [
    ("a", "a"),
    ("a", "a/"),
    ("a", "./x/../a"),
    ("a", "link"),
    ("a", "up/up/a"),
    ("a", "~/a"),
    ("a", "file://HERE/a"),
    ("a", "FILE://HERE/link/"),
    ("new", "up/new"),
    ("gs://b/a", "gs://b/a/"),
    ("gs://b/a", "GS://B//x/../a"),
    ("gs://b/a", "gcs://b/a"),
    ("s3://b/a", "s3a://b/./a"),
]
WITHIN = [("a", "link/b"), ("up", "a"), ("a", "a/not/there"), ("gs://b", "gs://b/a"), ("s3://b/a", "s3://b/a/c")]
APART = [
    ("a", "ab"),
    ("a/b", "a/c"),
    ("gs://b/a", "gs://b/ab"),
    ("gs://b/a", "s3://b/a"),
    ("gs://b/a", "gs://b/A"),
    ("gs://b/a", "a"),
]


def overlap(one: str, other: str, here: Path) -> list[str]:
    """Return what is said of two outputs, of an output and an input, and the other way round."""
    one, other = (place.replace("HERE", str(here)) for place in (one, other))
    said = []
    for inputs, outputs in (
        ({}, {"policy": one, "rollouts": other}),
        ({"prompts": other}, {"policy": one}),
        ({"prompts": one}, {"policy": other}),
    ):
        try:
            refuse_overlaps(StageIO(inputs, outputs), outputs, {})
        except UserError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_place_is_seen_under_any_name(here: Path, one: str, other: str) -> None:
    said = overlap(one, other, here)
    assert len(said) == 3
    assert all(" is output rollouts" in text or " is input prompts" in text for text in said)
    assert all(text.endswith("; name a place of its own for each") for text in said)


@pytest.mark.parametrize(("one", "other"), WITHIN)
def test_a_place_within_the_other_is_seen(here: Path, one: str, other: str) -> None:
    said = overlap(one, other, here)
    assert [" holds " in said[0], " holds " in said[1], " lies in " in said[2]] == [True, True, True]


@pytest.mark.parametrize(("one", "other"), APART)
def test_places_that_only_look_alike_are_apart(here: Path, one: str, other: str) -> None:
    assert overlap(one, other, here) == []


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"preferences": "a"}, "output preferences: a holds data: HERE/a/rows.jsonl"),
        ({"data_report": "a/rows.jsonl"}, "output data_report: a/rows.jsonl is data: HERE/a/rows.jsonl"),
        ({"preferences": "."}, "output preferences: . holds data: HERE/a/rows.jsonl"),
        ({"prompts": "model"}, "output prompts: model is model.name_or_path (HERE/model)"),
    ],
)
def test_what_the_config_names_is_not_written_over(here: Path, outputs: Any, said: str) -> None:
    """A stage's earlier output is its own to empty: were it the data, too, it would be gone before it is missed."""
    (here / "a" / "rows.jsonl").write_text("{}")
    (here / "a" / "manifest.json").write_text('{"podium": "1"}')
    (here / "model").mkdir()
    (here / "model" / ".work").mkdir()
    config = load_config_data(
        {"model": {"name_or_path": str(here / "model")}, "data": {"preferences": [str(here / "a" / "*.jsonl")]}},
        source="test",
    )
    before = sorted(here.rglob("*"))
    with pytest.raises(UserError) as caught:
        run_stage("prepare", config, StageIO({}, outputs), run=lambda config, io: Result())
    assert str(caught.value).startswith(said.replace("HERE", str(here)))
    assert sorted(here.rglob("*")) == before


def test_a_run_may_lie_beside_the_files_of_its_model(here: Path) -> None:
    (here / "config.json").write_text("{}")
    outputs = {"preferences": "runs/preferences"}
    refuse_overlaps(StageIO({}, outputs), outputs, {"model.name_or_path": str(here)})


def test_a_link_to_itself_is_refused(here: Path) -> None:
    (here / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop: is a symbolic link that leads back to itself"):
        refuse_overlaps(StageIO({"prompts": "a"}, {"policy": "loop"}), {"policy": "loop"}, {})


def test_the_home_of_nobody_is_refused(here: Path) -> None:
    with pytest.raises(UserError, match="~nobody-of-this-name/x: no such user; write the path in full"):
        StageIO({}, {"policy": "~nobody-of-this-name/x"}).output("policy")
