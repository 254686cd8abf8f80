"""The sample stage on a small trained model: what it writes, that it repeats, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from podium.config import PodiumConfig
from podium.data.records import PromptRecord, write_jsonl
from podium.errors import UserError
from podium.evaluation.candidates import read_candidates
from podium.stages import sample
from podium.stages.io import StageIO

TEXTS = ["Once upon a time", "The dog ran", "Lily had a red ball and"]


@pytest.fixture
def model_path(data_dir: Path) -> Path:
    return data_dir / "model-stories260k"


def config(model: Path, **changes: Any) -> PodiumConfig:
    settings = {"max_new_tokens": 6, "num_generations": 2, "batch_size": 4, **changes}
    mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    return PodiumConfig.model_validate(
        {"seed": 3, "model": {"name_or_path": str(model)}, "sample": settings, "platform": {"mesh": mesh}}
    )


def prompts(folder: Path, split: str = "eval") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [PromptRecord(id=f"p{n}", prompt=[{"role": "user", "content": text}]) for n, text in enumerate(TEXTS)]
    write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def test_candidates_name_prompt_model_and_sampling(model_path: Path, tmp_path: Path) -> None:
    io = StageIO.local(tmp_path / "out", prompts=prompts(tmp_path / "prompts"))
    result = sample.run(config(model_path), io)
    rows = read_candidates(io.output("candidates"))
    assert [row.id for row in rows] == ["p0", "p1", "p2"]
    assert [row.prompt[0]["content"] for row in rows] == TEXTS
    assert {len(row.responses) for row in rows} == {2}
    pairs = [row.responses for row in rows]
    assert any(first.token_ids != second.token_ids for first, second in pairs), "each answer has its own random stream"
    assert all(len(r.token_ids) == r.num_tokens <= 6 for row in rows for r in row.responses)
    assert all((r.num_tokens == 6) or r.finish_reason == "stop" for row in rows for r in row.responses)
    assert rows[0].model == str(model_path) and rows[0].model_digest
    assert rows[0].sampling.seed == 3 and rows[0].sampling.max_new_tokens == 6
    assert result.metrics["num_prompts"] == 3 and result.metrics["num_responses"] == 6
    lengths = [r.num_tokens for row in rows for r in row.responses]
    assert result.metrics["length"] == pytest.approx(sum(lengths) / 6)


def test_equal_seeds_give_equal_bytes_whatever_the_batch(model_path: Path, tmp_path: Path) -> None:
    folder = prompts(tmp_path / "prompts")
    files = []
    for name, batch, seed in (("a", 4, 3), ("b", 3, 3), ("c", 4, 4)):
        io = StageIO.local(tmp_path / name, prompts=folder)
        sample.run(config(model_path, batch_size=batch).model_copy(update={"seed": seed}), io)
        files.append((io.output("candidates") / "candidates.jsonl").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2].replace(b'"seed": 4', b'"seed": 3')


def test_split_and_max_prompts_choose_the_prompts(model_path: Path, tmp_path: Path) -> None:
    io = StageIO.local(tmp_path / "out", prompts=prompts(tmp_path / "prompts", "train"))
    sample.run(config(model_path, split="train", max_prompts=2, temperature=0.0, num_generations=1), io)
    rows = [json.loads(line) for line in (io.output("candidates") / "candidates.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["p0", "p1"]
    assert rows[0]["responses"][0]["finish_reason"] in {"stop", "length"}


def test_progress_is_printed(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io = StageIO.local(tmp_path / "out", prompts=prompts(tmp_path / "prompts"))
    sample.run(config(model_path), io)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sample 0/6" and lines[-1].startswith("sample 6/6")


def test_missing_or_empty_prompts_are_said_with_their_file(tmp_path: Path) -> None:
    folder = prompts(tmp_path / "prompts", "train")
    io = StageIO.local(tmp_path / "out", prompts=folder)
    with pytest.raises(UserError, match=r"eval\.jsonl"):
        sample.run(config(tmp_path / "model"), io)
    (folder / "eval.jsonl").write_text("")
    with pytest.raises(UserError, match=r"eval\.jsonl: holds no prompts; give data\.prompts more rows"):
        sample.run(config(tmp_path / "model"), io)
    assert not (tmp_path / "out" / "candidates").exists()
