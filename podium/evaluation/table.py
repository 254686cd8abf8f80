"""The before/after table in words, one source for the page, the Markdown twin and the terminal."""

from collections.abc import Mapping
from typing import Any

from podium.evaluation.wording import MISSING, difference, estimate, number, percent, signed

TableRow = dict[str, str]


def rows(results: Mapping[str, Any]) -> list[TableRow]:
    """Return rows of label, baseline, tuned, change and hint (what the figure is), all text."""
    reward, wins, length = results["reward"], results["win_rate"], results["length"]
    record = f"{wins['wins']} won, {wins['ties']} tied, {wins['losses']} lost"
    control = " (extrapolated)" if results["equal_length"]["extrapolated"] else ""
    ratio = f"{estimate(length['change'], signed)}, {number(length['ratio'])} times"
    return [
        _row(
            "Mean reward", reward, estimate(reward["gain"], signed), hint="by the reward model; change paired by prompt"
        ),
        _only_tuned("Win rate", estimate(wins, percent), record, "prompts where the tuned answer has more reward"),
        _only_tuned(
            "Win rate at equal length",
            estimate(results["equal_length"]["win_rate"], percent) + control,
            f"gain {estimate(results['equal_length']['gain'], signed)}",
            "what remains when a regression takes length differences out",
        ),
        *_best_of(results["best_of"]),
        _row("Answer length", length, ratio, hint="tokens, the end token included"),
        _row("Answers that end by themselves", results["finish_rate"], write=percent, hint="before the length limit"),
        _row("Perplexity", results["perplexity"], hint="under the reference model; high means odd text"),
        _only_tuned("KL per answer", estimate(results["kl"]["answer"]), "", "nats from the reference model"),
        _only_tuned("KL per token", estimate(results["kl"]["token"]), "", "nats from the reference model"),
    ]


def _row(
    label: str, sides: Mapping[str, Any], change: str | None = None, *, hint: str, write: Any = number
) -> TableRow:
    if change is None:
        change = _difference({side: sides[side]["value"] for side in ("baseline", "tuned")}, write)
    return {
        "label": label,
        "baseline": estimate(sides["baseline"], write),
        "tuned": estimate(sides["tuned"], write),
        "change": change,
        "hint": hint,
    }


def _best_of(result: Mapping[str, Any] | None) -> list[TableRow]:
    if result is None:
        return []
    ahead = f"tuned less this: {estimate(result['ppo_ahead'], signed)}"
    hint = f"of the untrained model, by the reward model; at most {number(result['kl'])} nats away"
    label = f"Reward of the best of {result['n']} answers"
    return [{"label": label, "baseline": estimate(result["reward"]), "tuned": "", "change": ahead, "hint": hint}]


def _only_tuned(label: str, tuned: str, change: str, hint: str) -> TableRow:
    return {"label": label, "baseline": "", "tuned": tuned, "change": change, "hint": hint}


def _difference(sides: Mapping[str, Any], write: Any) -> str:
    """Write after - before; between shares in percentage points."""
    before, after = sides["baseline"], sides["tuned"]
    if before is None or after is None:
        return MISSING
    return difference(after - before) if write is percent else signed(after - before)
