"""The machine-readable result of an evaluation: samples.jsonl, results.json and summary.md in one folder.

results.json holds what `podium.evaluation.comparison.compare` returns, and

  reward_model   the reward model's held-out report, or null
  reward_unit    what rewards are counted in, in words
  gates          [{name, label, threshold, value, low, high, passed, sure}]
  gates_passed   true where no configured gate failed
  sampling       how both sides were sampled, the seed included
  policies       {baseline, tuned}: name and digest of the models compared
  summary        {verdict: green|amber|red, headline, reasons: [{level, text}],
                  signs: [{level, label, hint, baseline, tuned, change, text}],
                  table: [{label, baseline, tuned, change, hint}],
                  examples: [{prompt, baseline, tuned, reward_baseline, reward_tuned}]}

The summary is made of text and is what a terminal shows; its keys and levels do not change. Reasons stand red, amber,
green, and the verdict is the worst of their levels. Its examples are not the best ones: each stands in the middle of a
third of the answers, ordered by reward change.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from podium.errors import UserError
from podium.evaluation import samples, table, verdict
from podium.evaluation.candidates import write_rows

SAMPLES_FILE, RESULTS_FILE, SUMMARY_FILE = "samples.jsonl", "results.json", "summary.md"
_EXAMPLE = ("baseline", "tuned", "reward_baseline", "reward_tuned")


def conclude(
    measured: Mapping[str, Any],
    rows: Sequence[samples.Sample],
    *,
    reward_model: Mapping[str, Any] | None,
    gates: Mapping[str, float | None],
) -> dict[str, Any]:
    """Add gates and summary to what was measured."""
    instruction = samples.shared_instruction(rows)
    results: dict[str, Any] = {**measured, "reward_model": reward_model}
    results["gates"] = verdict.check_gates(results, gates)
    results["gates_passed"] = all(gate["passed"] for gate in results["gates"])
    results["summary"] = {
        **verdict.summarise(results, results["gates"]),
        "table": table.rows(results),
        "examples": [
            {"prompt": samples.prompt_text(row["prompt"], instruction), **{name: row[name] for name in _EXAMPLE}}
            for row in samples.examples(rows)
        ],
    }
    return results


def read(folder: Path) -> dict[str, Any]:
    """Read results.json of a folder.

    Raises:
        UserError: It is not there, or no results of this version.
    """
    path = folder / RESULTS_FILE
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        result = None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); run `podium evaluate` again") from None
    if not isinstance(result, dict) or not result.keys() >= {"gates", "gates_passed", "summary"}:
        raise UserError(f"{path}: holds no results of an evaluation; name the samples that `podium evaluate` wrote")
    return result


def write(folder: Path, results: Mapping[str, Any], rows: Sequence[samples.Sample], summary: str) -> None:
    """Write the three files into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / SAMPLES_FILE, rows)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / SUMMARY_FILE).write_text(summary, encoding="utf-8")
