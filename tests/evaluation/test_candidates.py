"""Candidates on disk: they come back as they went, and broken files are named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.errors import UserError
from podium.evaluation.candidates import (
    CANDIDATES_FILE,
    Candidates,
    Response,
    SamplingRecord,
    read_candidates,
    write_candidates,
)

SETTINGS = SamplingRecord(max_new_tokens=4, temperature=1.0, top_k=0, top_p=1.0, seed=1)


def row(name: str, texts: list[str], settings: SamplingRecord = SETTINGS) -> Candidates:
    responses = [Response(text=text, num_tokens=2, finish_reason="stop", token_ids=[5, 2]) for text in texts]
    prompt = [{"role": "user", "content": "Hi"}]
    return Candidates(id=name, prompt=prompt, responses=responses, model="m", sampling=settings)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Line separators of Unicode and null characters included: a row is one line."""
    folder = tmp_path_factory.mktemp("candidates")
    rows = [row("a", texts), row("b", texts[::-1])]
    write_candidates(folder, rows)
    assert read_candidates(folder) == rows


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"candidates\.jsonl: no such file; `podium sample` writes it"):
        read_candidates(tmp_path)
    path = tmp_path / CANDIDATES_FILE
    path.write_text("")
    with pytest.raises(UserError, match="holds no candidates"):
        read_candidates(tmp_path)
    write_candidates(tmp_path, [row("a", ["x"])])
    good = path.read_text()
    path.write_text(good + "{broken\n")
    with pytest.raises(UserError, match=r"candidates\.jsonl:2: line: Invalid JSON"):
        read_candidates(tmp_path)
    bad = json.loads(good)
    del bad["responses"][0]["token_ids"]
    path.write_text(good + json.dumps(bad) + "\n")
    with pytest.raises(UserError, match=r"candidates\.jsonl:2: responses\.0\.token_ids: Field required"):
        read_candidates(tmp_path)


def test_rows_sampled_in_different_ways_are_refused(tmp_path: Path) -> None:
    write_candidates(tmp_path, [row("a", ["x"]), row("b", ["x"], SETTINGS.model_copy(update={"temperature": 0.5}))])
    with pytest.raises(UserError, match=r"candidates\.jsonl:2: is sampled differently from line 1"):
        read_candidates(tmp_path)
    write_candidates(tmp_path, [row("a", ["x"]), row("b", ["x", "y"])])
    with pytest.raises(UserError, match="sampled differently"):
        read_candidates(tmp_path)
