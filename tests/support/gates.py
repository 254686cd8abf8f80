"""What `evaluate` wrote of a run that became worse, as far as it is read behind it."""

from pathlib import Path
from typing import Any

from podium.evaluation import results
from podium.evaluation.verdict import check_gates, gate_reason

FIGURES = {"win_rate": {"value": 0.25, "low": 0.125, "high": 0.4}, "kl": {"answer": 3.5}}
HEADLINE = "Worse on 9 prompts."


def reasons(**gates: float) -> list[str]:
    """Return what is said of each gate."""
    return [gate_reason(row).text for row in check_gates(FIGURES, gates)]


FAILED = reasons(min_win_rate=0.5)[0]


def samples(folder: Path, **gates: float) -> Path:
    """Write results.json and its companions for some gates."""
    rows = check_gates(FIGURES, gates)
    reasons = [{"level": "red", "text": "Mean reward fell."}]
    summary: dict[str, Any] = {"verdict": "red", "headline": HEADLINE, "reasons": reasons, "examples": []}
    found = {"gates": rows, "gates_passed": all(row["passed"] for row in rows), "summary": summary}
    results.write(folder, found, [], f"**{HEADLINE}**\n")
    return folder
