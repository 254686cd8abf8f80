"""The real stages on a tiny model, through the compiled pipeline and KFP's orchestrator, to a run that its gates fail.

One run holds everything that a reader is promised: report, model card, metrics, what the terminal shows.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from podium.config import STAGES
from podium.evaluation.report import SECTION_TITLES, SECTIONS
from podium.stages.manifest import read_manifest
from support.folders import write_folder

PAIRS, PROMPTS = 40, 40


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, exit status and what it printed."""

    out: Path
    status: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run all stages once: two steps of each training, answers of five tokens, a gate that nothing passes."""
    folder = tmp_path_factory.mktemp("whole")
    write_folder(folder / "model")
    pairs = [{"prompt": f"ask {n}", "chosen": f"yes {n}", "rejected": f"no {n} {n}"} for n in range(PAIRS)]
    prompts = [{"prompt": f"ask {n}"} for n in range(PROMPTS)]
    for name, rows in (("pairs", pairs), ("prompts", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"name_or_path": "model"},
        "data": {"preferences": "pairs.jsonl", "prompts": "prompts.jsonl", "eval_fraction": 0.25},
        "sample": {"max_new_tokens": 5},
        "reward": {"max_steps": 2, "logging_steps": 1, "lora": {"r": 2}},
        "ppo": {"max_steps": 2, "per_device_batch_size": 4, "max_new_tokens": 5, "lora": {"r": 2}},
        "evaluation": {"gates": {"min_win_rate": 1.0, "max_kl": 1000.0}},
        "export": {"verify": "never"},
    }
    (folder / "rlhf.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "podium", "run", str(folder / "rlhf.yaml"), "--out", str(folder / "out")],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Run(folder / "out", done.returncode, done.stdout, done.stderr)


def test_it_ends_with_3_behind_all_stages(run: Run) -> None:
    assert run.status == 3, run.output + run.errors
    stages = [stage for stage in STAGES if stage != "sft"]
    assert re.findall(r"^\[\d/7\] (\w+)$", run.output, re.MULTILINE) == stages
    (said,) = [line for line in run.errors.splitlines() if "gates failed" in line]
    assert re.fullmatch(r"podium: gates failed: Gate failed: win rate .*, at least .* asked\.", said)


def test_the_terminal_ends_with_the_verdict(run: Run) -> None:
    summary = json.loads((run.out / "evaluate" / "samples" / "results.json").read_text())["summary"]
    end = run.output[run.output.index("[7/7] gates") :]
    assert f"red     {summary['headline']}\n" in end
    seen = [reason["text"] for reason in summary["reasons"] if reason["level"] != "green"]
    assert all(f"  {text}\n" in end for text in seen) and "Gate failed: win rate" in seen[0]
    assert [end.count(f"\n{word} ") for word in ("Prompt", "Before", "After")] == [3, 3, 3]
    last = [line.split()[0] for line in end.splitlines()[-4:]]
    assert last == ["Report", "Model", "Gates", "Done"]


def test_the_report_has_every_section_and_a_row_of_data(run: Run) -> None:
    page = (run.out / "report.html").read_text(encoding="utf-8")
    # The verdict's own section is headed by what it says.
    assert re.findall(r'<section[^>]* id="([\w-]+)"', page) == [name for name, _ in SECTIONS]
    found = re.findall(r"<h2[^>]*>(.*?)</h2>", page, re.DOTALL)
    assert set(SECTION_TITLES[1:]) <= {title.strip() for title in found}
    (counts,) = re.findall(r"<tr><th>Prompts</th><td[^>]*>(\d+)</td><td[^>]*>(\d+)</td></tr>", page)
    assert sum(map(int, counts)) == PROMPTS and "0" not in counts


def read_metrics(run: Run, stage: str) -> dict[str, float]:
    """Return what a stage measured, as its artifact has it and as KFP was told."""
    found: dict[str, float] = json.loads((run.out / stage / "metrics" / "metrics.json").read_text())
    told = json.loads((run.out / stage / "executor_output.json").read_text())["artifacts"]["metrics"]
    assert told["artifacts"][0]["metadata"] == found
    return found


def test_metrics_hold_what_the_evaluation_is_judged_by(run: Run) -> None:
    metrics = read_metrics(run, "evaluate")
    promised = {"num_prompts", "reward_gain", "win_rate", "win_rate_low", "kl", "length_ratio", "reward_accuracy"}
    assert promised <= metrics.keys()
    assert metrics["gates_passed"] == 0.0


def test_the_model_is_there_and_its_card_says_that_the_run_failed(run: Run) -> None:
    folder = run.out / "export" / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\w+)$", card, re.MULTILINE)
    assert {"Evaluation", "Use", "Training", "Check", "Limits"} <= set(headings)
    assert "**This model failed the gates of its run.**" in card and "Gate failed: win rate" in card
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.metadata["model"]["gates_passed"] is False
    assert (folder / "model.safetensors").is_file()
    assert not (run.out / "gates" / "metrics" / "manifest.json").exists()
