"""Say which figures of `podium.evaluation.collapse` are signs of a collapse, how bad, and in which words.

Red where a figure rose (variety: fell) by more than the first limit and its whole interval lies on that side of no
change; amber where only one of the two holds, past the second limit. docs/rlhf.md, section 14, has the reasons.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from podium.evaluation.collapse import OPENING_WORDS, REPETITION_N
from podium.evaluation.wording import MISSING, difference, estimate, percent

Level = Literal["red", "amber", "green"]

# (red, amber), as shares: a rise of 10 points is one answer in ten that says what others say.
SHARE_RISE = (0.10, 0.05)
# Of 4-word groups: people repeat well under 1 % of theirs; 15 points more is a loop in one answer of six.
REPETITION_RISE = (0.15, 0.05)
# Relative: a third, or a sixth, of the different word pairs is gone.
VARIETY_LOSS = (1 / 3, 1 / 6)

_CHANCE = " (may be chance)"


class Sign(NamedTuple):
    """One figure of both policies in words, with its level; `text` is the reason, empty where the level is green."""

    level: Level
    label: str
    hint: str
    baseline: str
    tuned: str
    change: str
    text: str


def signs(measured: Mapping[str, Any]) -> list[Sign]:
    """Judge what `collapse.measure` returned."""
    rows = [_opening(measured["opening"])]
    rows += [_risen(measured[name], *words) for name, *words in _SHARES]
    rows += [_repetition(measured["repetition"]), _variety(measured["distinct"])]
    return [*rows, _phrase(measured["phrase"])]


_SHARES = (
    (
        "duplicates",
        "Answers given to several prompts",
        "word for word the answer to another prompt too",
        "{tuned} of the answers are word for word an answer to another prompt, {baseline} before",
    ),
    (
        "prompt_copies",
        "Answers that copy the prompt",
        "at least half of their 4-word groups stand in the prompt",
        "{tuned} of the answers repeat their prompt, {baseline} before",
    ),
)


def _opening(result: Mapping[str, Any]) -> Sign:
    words = result["words"]
    level, unsure = _level(result["change"], SHARE_RISE)
    text = (
        f'{percent(result["tuned"]["value"])} of the answers begin "{words["tuned"]}"; the most common beginning of '
        f'the untrained model, "{words["baseline"]}", opens {percent(result["baseline"]["value"])}'
    )
    return Sign(
        level,
        "Most common opening",
        f"answers that share their first {OPENING_WORDS} words",
        f'{estimate(result["baseline"], percent)} "{words["baseline"]}"',
        f'{estimate(result["tuned"], percent)} "{words["tuned"]}"',
        estimate(result["change"], difference),
        "" if level == "green" else f"{text}{unsure}.",
    )


def _risen(result: Mapping[str, Any], label: str, hint: str, text: str) -> Sign:
    level, unsure = _level(result["change"], SHARE_RISE)
    said = text.format(**{side: percent(result[side]["value"]) for side in ("baseline", "tuned")})
    return _sign(level, label, hint, result, f"{said}{unsure}.")


def _repetition(result: Mapping[str, Any]) -> Sign:
    level, unsure = _level(result["change"], REPETITION_RISE)
    shares = f"{percent(result['baseline']['value'])} to {percent(result['tuned']['value'])}"
    text = f"Answers repeat themselves more: {shares} of their {REPETITION_N}-word groups stood there before{unsure}."
    return _sign(level, "Repetition within an answer", f"{REPETITION_N}-word groups that stood before", result, text)


def _variety(result: Mapping[str, Any]) -> Sign:
    change, before = result["change"], result["baseline"]["value"]
    loss = {key: None if change[key] is None or not before else -change[key] / before for key in change}
    # What was a rise's upper end is a loss's lower one.
    level, unsure = _level({**loss, "low": loss["high"], "high": loss["low"]}, VARIETY_LOSS)
    shares = f"{percent(before)} before, {percent(result['tuned']['value'])} after"
    text = f"Answers lost variety: of equally many word pairs, {shares} are different ones{unsure}."
    hint = "share of all word pairs, answers cut to equal length"
    return _sign(level, "Different word pairs", hint, result, text)


def _phrase(result: Mapping[str, Any] | None) -> Sign:
    """Amber at most: a phrase that everybody wants to read (thanks, a greeting) is a style, and still worth a look."""
    label, hint = "A phrase that most answers took up", "and that the untrained model seldom writes"
    if result is None:
        return Sign("green", label, hint, "", "none", "", "")
    shares = {side: percent(result[side]["value"]) for side in ("baseline", "tuned")}
    text = f'{shares["tuned"]} of the answers say "{result["words"]}", {shares["baseline"]} of the untrained model\'s.'
    shown = f'{shares["tuned"]} "{result["words"]}"'
    return Sign("amber", label, hint, shares["baseline"], shown, estimate(result["change"], difference), text)


def _sign(level: Level, label: str, hint: str, result: Mapping[str, Any], text: str) -> Sign:
    before, after = (
        estimate(result[side], percent) if result[side]["value"] is not None else MISSING for side in _SIDES
    )
    change = estimate(result["change"], difference)
    return Sign(level, label, hint, before, after, change, "" if level == "green" else text)


_SIDES = ("baseline", "tuned")


def _level(rise: Mapping[str, Any], limits: tuple[float, float]) -> tuple[Level, str]:
    """Return the level of a rise, and a remark where its interval leaves it open."""
    red, amber = limits
    value = rise["value"]
    if value is None:
        return "green", ""
    sure = rise["low"] is not None and rise["low"] > 0
    if value > red:
        return ("red", "") if sure else ("amber", _CHANCE)
    return ("amber", "") if value > amber and sure else ("green", "")
