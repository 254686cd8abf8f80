"""Turn figures into a verdict a reader can act on: gates, reasons with colours, one headline.

The limits below are warnings, not laws: crossing one says where to look first. They are chosen for chat-length answers;
the gates of the configuration are the place for a project's own limits.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from podium.evaluation import wording
from podium.evaluation.wording import estimate, number, percent, signed

Level = Literal["red", "amber", "green"]

MIN_PROMPTS = 30  # below, the normal approximation behind the intervals is shaky
LENGTH_RATIO = (0.5, 2.0)  # answers half or twice as long: look whether the reward follows length
FINISH_DROP = 0.10
REPETITION_RISE = 0.05
PERPLEXITY_RATIO = 2.0  # the reference finds the tuned answers twice as surprising per token
KL_PER_ANSWER = 30.0  # nats; small reward models are over-optimised in this region (Gao et al. 2022, figure 1)


class Reason(NamedTuple):
    """One finding and its colour."""

    level: Level
    text: str


class _GateRule(NamedTuple):
    """How a gate reads: its label, whether the threshold is a least or a most, and where its figure stands."""

    label: str
    least: bool
    path: tuple[str, ...]


_GATES = {
    "min_win_rate": _GateRule("win rate", True, ("win_rate",)),
    "min_reward_gain": _GateRule("reward gain", True, ("reward", "gain")),
    "max_kl": _GateRule("KL per answer", False, ("kl", "answer")),
    "min_reward_accuracy": _GateRule("reward model accuracy", True, ("reward_model", "accuracy")),
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
    """Return {verdict, headline, reasons: [{level, text}]}, reasons ordered red, amber, green."""
    reasons = [_gate_reason(gate) for gate in gates] + _reward_reasons(results)
    reasons += _length_reasons(results) + _text_reasons(results) + _trust_reasons(results)
    order: list[Level] = ["red", "amber", "green"]
    reasons.sort(key=lambda reason: order.index(reason.level))
    verdict = reasons[0].level
    return {"verdict": verdict, "headline": headline(results), "reasons": [reason._asdict() for reason in reasons]}


def headline(results: Mapping[str, Any]) -> str:
    """Say in one sentence what happened, with figures and intervals."""
    gain, wins, kl = results["reward"]["gain"], results["win_rate"], results["kl"]["answer"]
    start = {"green": "Better", "red": "Worse", "amber": "No clear change"}[_side(gain, 0.0)]
    return (
        f"{start} on {results['prompts']} held-out prompts: reward {estimate(gain, signed)}, "
        f"win rate {estimate(wins, percent)}, KL {number(kl['value'])} nats per answer."
    )


def _figure(results: Mapping[str, Any], path: tuple[str, ...]) -> tuple[float | None, float | None, float | None]:
    found: Any = results
    for key in path:
        found = None if found is None else found.get(key)
    if isinstance(found, Mapping):
        return found["value"], found["low"], found["high"]
    return found, None, None


def _side(found: Mapping[str, Any], middle: float) -> Level:
    """Green where the whole interval lies above the middle, red where below, amber otherwise."""
    if found["low"] is None:
        return "amber"
    return "green" if found["low"] > middle else "red" if found["high"] < middle else "amber"


def _gate_reason(gate: Mapping[str, Any]) -> Reason:
    rule = _GATES[gate["name"]]
    limit = f"{'at least' if rule.least else 'at most'} {number(gate['threshold'])}"
    if gate["value"] is None:
        return Reason("red", f"Gate {gate['name']} failed: the {rule.label} was not measured ({limit} asked).")
    shown = f"{rule.label} {estimate(gate)}"
    if not gate["passed"]:
        return Reason("red", f"Gate {gate['name']} failed: {shown}, {limit} asked.")
    if not gate["sure"]:
        return Reason("amber", f"Gate {gate['name']} passed, but the interval crosses it: {shown}, {limit} asked.")
    return Reason("green", f"Gate {gate['name']} passed: {shown}, {limit} asked.")


def _reward_reasons(results: Mapping[str, Any]) -> list[Reason]:
    gain, wins = results["reward"]["gain"], results["win_rate"]
    level = _side(gain, 0.0)
    said = {
        "green": "Mean reward rose by more than chance explains",
        "red": "Mean reward fell",
        "amber": "The change of mean reward may be chance",
    }[level]
    found = [Reason(level, f"{said}: {estimate(gain, signed)}.")]
    level = _side(wins, 0.5)
    said = {
        "green": "wins more often than it loses",
        "red": "loses more often than it wins",
        "amber": "may be even",
    }[level]
    return [*found, Reason(level, f"Against the baseline it {said}: {estimate(wins, percent)}.")]


def _length_reasons(results: Mapping[str, Any]) -> list[Reason]:
    gain, ratio = results["equal_length"]["gain"], results["length"]["ratio"]
    found = []
    if results["equal_length"]["extrapolated"]:
        text = "Nearly all answers changed length in the same direction: the gain at equal length is extrapolated."
        found.append(Reason("amber", text))
    elif _side(results["reward"]["gain"], 0.0) == "green":
        clear = _side(gain, 0.0) == "green"
        said = "remains" if clear else "is no longer clear"
        found.append(
            Reason("green" if clear else "amber", f"At equal length the gain {said}: {estimate(gain, signed)}.")
        )
    if not LENGTH_RATIO[0] <= ratio <= LENGTH_RATIO[1]:
        found.append(Reason("amber", f"Answers are {number(ratio)} times as long: check that reward is not length."))
    return found


def _text_reasons(results: Mapping[str, Any]) -> list[Reason]:
    found = []
    finish, repeat, odd = results["finish_rate"], results["repetition"], results["perplexity"]
    if finish["tuned"]["value"] < finish["baseline"]["value"] - FINISH_DROP:
        shares = f"{percent(finish['baseline']['value'])} to {percent(finish['tuned']['value'])}"
        found.append(Reason("amber", f"Fewer answers end by themselves: {shares}."))
    if repeat["tuned"]["value"] > repeat["baseline"]["value"] + REPETITION_RISE:
        shares = f"{percent(repeat['baseline']['value'])} to {percent(repeat['tuned']['value'])}"
        found.append(Reason("amber", f"Answers repeat themselves more: {shares} of word groups."))
    before, after = odd["baseline"]["value"], odd["tuned"]["value"]
    if before is not None and after is not None:
        fluent = after <= PERPLEXITY_RATIO * before
        said = "still look like text to the reference model" if fluent else "look odd to the reference model"
        text = f"Answers {said}: perplexity {number(before)} before, {number(after)} after."
        found.append(Reason("green" if fluent else "amber", text))
    kl = results["kl"]["answer"]
    if kl["value"] is not None and kl["value"] > KL_PER_ANSWER:
        found.append(Reason("amber", f"The policy moved far: KL {wording.estimate(kl)} nats per answer."))
    return found


def _trust_reasons(results: Mapping[str, Any]) -> list[Reason]:
    found = []
    if results["prompts"] < MIN_PROMPTS:
        found.append(Reason("amber", f"Only {results['prompts']} prompts: read the intervals as rough."))
    model = results.get("reward_model")
    if not model or "accuracy_above_length_rule" not in model:
        return [*found, Reason("amber", "The reward model came without a held-out report: its judgement is unchecked.")]
    level = _side(model["accuracy_above_length_rule"], 0.0)
    said = {"green": "beats", "red": "is worse than", "amber": "is not clearly better than"}[level]
    rule = model["best_length_rule"]
    text = (
        f"The reward model {said} the rule that the {rule['rule']} answer wins: "
        f"{estimate(model['accuracy'], percent)} against {percent(rule['value'])} of {model['pairs']} held-out pairs."
    )
    return [*found, Reason(level, text)]
