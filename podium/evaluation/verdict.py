"""Turn figures into a verdict a reader can act on: gates, reasons with colours, one headline.

The limits below are warnings, not laws: crossing one says where to look first. They are chosen for chat-length answers;
the gates of the configuration are the place for a project's own limits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from podium.evaluation import signs, wording
from podium.evaluation.signs import Level, Sign
from podium.evaluation.wording import Write, estimate, number, percent, signed

MIN_PROMPTS = 30  # below, the normal approximation behind the intervals is shaky
LENGTH_RATIO = (0.5, 2.0)  # answers half or twice as long: look whether the reward follows length
FINISH_DROP = 0.10
PERPLEXITY_RATIO = 2.0  # the reference finds the tuned answers twice as surprising per token
ACCURACY_FALL = 0.05  # of held-out pairs, where answers are cut off as training cuts them
KL_PER_ANSWER = 30.0  # nats; small reward models are over-optimised in this region (Gao et al. 2022, figure 1)


class Reason(NamedTuple):
    """One finding and its colour."""

    level: Level
    text: str


class _GateRule(NamedTuple):
    """How a gate reads: its label, whether the threshold is a least or a most, where its figure stands, its form."""

    label: str
    least: bool
    path: tuple[str, ...]
    write: Write = number


_GATES = {
    "min_win_rate": _GateRule("win rate", True, ("win_rate",), percent),
    "min_reward_gain": _GateRule("reward gain", True, ("reward", "gain"), signed),
    "max_kl": _GateRule("KL per answer in nats", False, ("kl", "answer")),
    "min_reward_accuracy": _GateRule("reward model accuracy", True, ("reward_model", "accuracy"), percent),
    "max_length_ratio": _GateRule("length ratio", False, ("length", "ratio")),
}


def check_gates(results: Mapping[str, Any], gates: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Hold each configured threshold against its figure; a figure that was not measured fails.

    The value decides, not its interval: `sure` says whether the whole interval stands on the same side.
    """
    rows = []
    for name, threshold in gates.items():
        if threshold is None:
            continue
        rule = _GATES[name]
        value, low, high = _figure(results, rule.path)
        passed = value is not None and (value >= threshold if rule.least else value <= threshold)
        sure = low is None or high is None or not low < threshold < high
        row = {"name": name, "label": rule.label, "threshold": threshold, "value": value, "low": low, "high": high}
        rows.append({**row, "passed": passed, "sure": sure})
    return rows


def summarise(results: Mapping[str, Any], gates: list[dict[str, Any]]) -> dict[str, Any]:
    """Return {verdict, headline, reasons: [{level, text}], signs: [{level, label, ...}]}.

    Reasons stand red, amber, green; the verdict is the worst of their levels. So it is green only where no sign of
    collapse is red.
    """
    result = signs.signs(results["collapse"])
    reasons = [gate_reason(gate) for gate in gates] + _collapse_reasons(result) + _reward_reasons(results)
    reasons += _best_of_reasons(results) + _length_reasons(results) + _text_reasons(results) + _trust_reasons(results)
    order: list[Level] = ["red", "amber", "green"]
    reasons.sort(key=lambda reason: order.index(reason.level))
    return {
        "verdict": reasons[0].level,
        "headline": headline(results, collapsed=any(sign.level == "red" for sign in result)),
        "reasons": [reason._asdict() for reason in reasons],
        "signs": [sign._asdict() for sign in result],
    }


def headline(results: Mapping[str, Any], *, collapsed: bool) -> str:
    """Say in one sentence what happened, with figures and intervals."""
    gain, wins, kl, best = results["reward"]["gain"], results["win_rate"], results["kl"]["answer"], results["best_of"]
    level, beside = _side(gain, 0.0), ""
    start = {"green": "Better", "red": "Worse", "amber": "No clear change"}[level]
    if collapsed:
        start = {
            "green": "Reward up, answers collapsed",
            "red": "Worse, and answers collapsed",
            "amber": "Answers collapsed, reward about the same",
        }[level]
    elif best and level == "green" and best["ppo_ahead"]["value"] < 0:
        start = f"Better than before, not than best of {best['n']},"
    if best:
        beside = f" (best of {best['n']}: {signed(best['gain']['value'])})"
    return (
        f"{start} on {results['prompts']} held-out prompts: reward {estimate(gain, signed)}{beside}, "
        f"win rate {estimate(wins, percent)}, KL {number(kl['value'])} nats per answer."
    )


def _figure(results: Mapping[str, Any], path: tuple[str, ...]) -> tuple[float | None, float | None, float | None]:
    result: Any = results
    for key in path:
        result = None if result is None else result.get(key)
    if isinstance(result, Mapping):
        return result["value"], result["low"], result["high"]
    return result, None, None


def _side(result: Mapping[str, Any], middle: float) -> Level:
    """Green where the whole interval lies above the middle, red where below, amber otherwise."""
    if result["low"] is None:
        return "amber"
    return "green" if result["low"] > middle else "red" if result["high"] < middle else "amber"


def gate_reason(gate: Mapping[str, Any]) -> Reason:
    """Say of one row of `check_gates` what was asked, what was found, and whether that is enough."""
    rule = _GATES[gate["name"]]
    limit = f"{'at least' if rule.least else 'at most'} {rule.write(gate['threshold'])} asked"
    if gate["value"] is None:
        return Reason("red", f"Gate failed: {rule.label} was not measured, {limit}.")
    shown = f"{rule.label} {estimate(gate, rule.write)}, {limit}"
    if not gate["passed"]:
        return Reason("red", f"Gate failed: {shown}.")
    if not gate["sure"]:
        return Reason("amber", f"Gate passed, but the limit lies inside the interval: {shown}.")
    return Reason("green", f"Gate passed: {shown}.")


def _collapse_reasons(result: list[Sign]) -> list[Reason]:
    """Return a reason for each sign; without one, say what was looked for."""
    seen = [Reason(sign.level, sign.text) for sign in result if sign.level != "green"]
    none = "No sign of collapse: openings, duplicates, copies of the prompt, repetition and variety are as before."
    return seen or [Reason("green", none)]


def _best_of_reasons(results: Mapping[str, Any]) -> list[Reason]:
    best = results["best_of"]
    if not best:
        return []
    gain, kl = results["reward"]["gain"]["value"], results["kl"]["answer"]["value"]
    what = f"drawing {best['n']} untrained answers and keeping the better"
    figures = f"{signed(best['gain']['value'])} at no more than {number(best['kl'])} nats"
    ours = f"{signed(gain)} at {number(kl)}"
    if best["ppo_ahead"]["value"] < 0:
        return [Reason("amber", f"{what.capitalize()} gives more: {figures}, PPO {ours}.")]
    return [Reason("green", f"PPO gives at least as much as {what}: {ours} nats, against {figures}.")]


def _reward_reasons(results: Mapping[str, Any]) -> list[Reason]:
    gain, wins = results["reward"]["gain"], results["win_rate"]
    level = _side(gain, 0.0)
    said = {
        "green": "Mean reward rose by more than chance explains",
        "red": "Mean reward fell",
        "amber": "The change of mean reward may be chance",
    }[level]
    result = [Reason(level, f"{said}: {estimate(gain, signed)}.")]
    level = _side(wins, 0.5)
    said = {
        "green": "wins more often than it loses",
        "red": "loses more often than it wins",
        "amber": "may be even",
    }[level]
    return [*result, Reason(level, f"Against the baseline it {said}: {estimate(wins, percent)}.")]


def _length_reasons(results: Mapping[str, Any]) -> list[Reason]:
    gain, ratio = results["equal_length"]["gain"], results["length"]["ratio"]
    result = []
    if results["equal_length"]["extrapolated"]:
        text = "Nearly all answers changed length in the same direction: the gain at equal length is extrapolated."
        result.append(Reason("amber", text))
    elif _side(results["reward"]["gain"], 0.0) == "green":
        clear = _side(gain, 0.0) == "green"
        said = "remains" if clear else "is no longer clear"
        result.append(
            Reason("green" if clear else "amber", f"At equal length the gain {said}: {estimate(gain, signed)}.")
        )
    if not LENGTH_RATIO[0] <= ratio <= LENGTH_RATIO[1]:
        result.append(Reason("amber", f"Answers are {number(ratio)} times as long: check that reward is not length."))
    return result


def _text_reasons(results: Mapping[str, Any]) -> list[Reason]:
    result = []
    finish, odd = results["finish_rate"], results["perplexity"]
    if finish["tuned"]["value"] < finish["baseline"]["value"] - FINISH_DROP:
        shares = f"{percent(finish['baseline']['value'])} to {percent(finish['tuned']['value'])}"
        result.append(Reason("amber", f"Fewer answers end by themselves: {shares}."))
    before, after = odd["baseline"]["value"], odd["tuned"]["value"]
    if before is not None and after is not None:
        fluent = after <= PERPLEXITY_RATIO * before
        said = "still look like text to the reference model" if fluent else "look odd to the reference model"
        text = f"Answers {said}: perplexity {number(before)} before, {number(after)} after."
        result.append(Reason("green" if fluent else "amber", text))
    kl = results["kl"]["answer"]
    if kl["value"] is not None and kl["value"] > KL_PER_ANSWER:
        result.append(Reason("amber", f"The policy moved far: KL {wording.estimate(kl)} nats per answer."))
    return result


def _trust_reasons(results: Mapping[str, Any]) -> list[Reason]:
    result = []
    if results["prompts"] < MIN_PROMPTS:
        result.append(Reason("amber", f"Only {results['prompts']} prompts: read the intervals as rough."))
    model = results.get("reward_model")
    if not model or "accuracy_above_length_rule" not in model:
        return [
            *result,
            Reason("amber", "The reward model came without a held-out report: its judgement is unchecked."),
        ]
    level = _side(model["accuracy_above_length_rule"], 0.0)
    said = {"green": "beats", "red": "is worse than", "amber": "is not clearly better than"}[level]
    rule = model["best_length_rule"]
    text = (
        f"The reward model {said} the rule that the {rule['rule']} answer wins: "
        f"{estimate(model['accuracy'], percent)} against {percent(rule['value'])} of {model['pairs']} held-out pairs."
    )
    return [*result, Reason(level, text), *_cut_reasons(model)]


def _cut_reasons(model: Mapping[str, Any]) -> list[Reason]:
    """Warn where the reward model is less often right on answers that are cut off, as PPO cuts its own."""
    if not (cut := model.get("cut")):
        return []
    whole, part = model["accuracy"]["value"], cut["accuracy"]["value"]
    if part >= whole - ACCURACY_FALL:
        return []
    text = f"of answers cut after {cut['max_new_tokens']} tokens it orders {percent(part)} of the pairs right"
    return [
        Reason("amber", f"The reward model reads unfinished answers less well: {text}, of whole ones {percent(whole)}.")
    ]
