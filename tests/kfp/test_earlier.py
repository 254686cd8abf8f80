"""A run folder whose config or data changed: what is made again is said first, and the earlier run is kept whole."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podium.errors import UserError
from podium_pipelines import earlier
from support.pipeline_runs import Runs


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a run, but for its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".podium.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if out.name in path.name)


def test_a_changed_value_is_said_and_the_earlier_run_is_kept(runs: Runs) -> None:
    """Once: a run that goes on after it keeps nothing more, nor does --redo."""
    runs.finish()
    before = contents(runs.out)
    status, output, _ = runs.finish("reward.learning_rate=0.5", "ppo.kl_coef=0.3", FAIL="ppo:1")
    assert status == 1
    said = output.splitlines()[1:5]
    assert said[:3] == [
        "reward.learning_rate 1e-05 -> 0.5: reward, ppo, evaluate, export, gates again",
        "ppo.kl_coef 0.05 -> 0.3: ppo, evaluate, export, gates again",
        f"The earlier run stays in {runs.out}.1",
    ]
    assert runs.events[7:] == ["prepare skipped", "reward started at 0", "sample skipped"]
    kept = runs.out.with_name("out.1")
    assert contents(kept) == before
    assert (kept / "sample/candidates/content").samefile(runs.out / "sample/candidates/content")
    status, output, _ = runs.finish("reward.learning_rate=0.5", "ppo.kl_coef=0.3")
    assert (status, output.splitlines()[1]) == (0, "[1/7] prepare")
    (runs.folder / "prompts.jsonl").write_text('{"prompt": "another"}\n')
    status, output, _ = runs.finish("reward.learning_rate=0.5", "ppo.kl_coef=0.3", options=["--redo"])
    stages = "prepare, reward, sample, ppo, evaluate, export, gates"
    assert output.splitlines()[1:3] == [
        f"data.prompts ({runs.folder}/prompts.jsonl) changed on disk: {stages} again",
        "[1/7] prepare",
    ]
    assert status == 0
    assert beside(runs.out) == ["out", "out.1"]
    assert contents(kept) == before


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a run folder with a finished stage, one that is to be made again, and one in progress."""
    folder = tmp_path / "out"
    for name in ("reward/model", "ppo/policy", "sample/candidates/.work"):
        (folder / name).mkdir(parents=True)
        (folder / name / "content").write_text(name)
    for name in ("reward/model", "ppo/policy"):
        (folder / name / "manifest.json").write_text("{}")
    (folder / "config.yaml").write_text("seed: 1")
    (folder / ".podium.lock").write_text("123")
    return folder


def test_files_are_linked_where_nothing_writes_to_them_any_more(out: Path) -> None:
    before = contents(out)
    inode = (out / "ppo/policy/content").stat().st_ino
    kept = earlier.keep(out, ["ppo"])
    assert (kept, contents(kept)) == (out.with_name("out.1"), before)
    assert (kept / "ppo/policy/content").stat().st_ino == inode
    assert (kept / "reward/model/content").samefile(out / "reward/model/content")
    for name in ("config.yaml", "sample/candidates/.work/content"):
        assert not (kept / name).samefile(out / name), "a run writes to these"
    assert sorted(path.name for path in out.iterdir()) == [".podium.lock", "config.yaml", "reward", "sample"]
    assert not (kept / ".podium.lock").samefile(out / ".podium.lock"), "a run in one would lock the other"


def test_where_links_are_refused_files_are_copied(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    before = contents(out)
    monkeypatch.setattr(os, "link", refused)
    kept = earlier.keep(out, ["ppo"])
    assert contents(kept) == before
    assert not (kept / "reward/model/content").samefile(out / "reward/model/content")


def test_numbers_rise(out: Path) -> None:
    for name in ("out.7", "out.old", "output.9"):
        out.with_name(name).mkdir()
    assert earlier.keep(out, ["ppo"]).name == "out.8"


def test_an_earlier_run_that_cannot_be_kept_stays_where_it_is(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str, **_: Any) -> None:
        raise OSError(28, "No space left on device", target)

    before = contents(out)
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(UserError, match=r"cannot be kept as .*out\.1 \(.*No space left.*\); make room .* --redo"):
        earlier.keep(out, ["ppo"])
    assert contents(out) == before
    assert beside(out) == ["out"]


class Killed(BaseException):
    """Ends a program as SIGKILL would: nothing of ours runs after it."""


def die_after(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let so many calls that change the disk be the last ones."""
    calls = 0

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return call(*arguments, **options)

        return made

    for module, name in ((os, "link"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "rename"), (os, "replace")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    monkeypatch.setattr(shutil, "copy2", watched(shutil.copy2))


@pytest.mark.parametrize("redo", [False, True])
def test_whenever_a_kill_comes_the_earlier_run_is_whole(out: Path, redo: bool) -> None:
    """And the next start ends what was begun, without keeping the same run twice."""
    source = out.with_name("source")
    out.rename(source)
    before = contents(source)
    for at in range(100):
        shutil.copytree(source, out)
        with pytest.MonkeyPatch.context() as patch:
            die_after(patch, at)
            try:
                (earlier.replace if redo else earlier.keep)(out, ["ppo"])
                survived = True
            except Killed:
                survived = False
        kept = out.with_name("out.1")
        assert redo or before.items() <= contents(kept if kept.exists() else out).items(), at
        earlier.finish_moving(out)
        if (out / "ppo").exists():  # as if nothing had been begun
            assert contents(out) == before
            (earlier.replace if redo else earlier.keep)(out, ["ppo"])
        assert beside(out) == (["out"] if redo else ["out", "out.1"])
        assert redo or contents(kept) == before
        assert contents(out) == {name: text for name, text in before.items() if not name.startswith("ppo")}
        if survived:
            return
        for name in beside(out):
            shutil.rmtree(out.with_name(name))
    raise AssertionError("it was never left alone")
