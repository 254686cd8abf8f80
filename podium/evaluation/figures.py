"""Which charts the report draws, from results and training metrics; `charts` draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from podium.evaluation import charts, samples, wording
from podium.evaluation.preference import histogram

Metrics = Sequence[Mapping[str, Any]]
Drawn = list[tuple[str, Markup]]  # title and SVG; charts escape their text


def training_charts(curves: Metrics) -> Drawn:
    """Draw what PPO logged: only charts whose figures are there."""
    raw, score, rlhf = (_curve(curves, f"objective/{name}") for name in ("scores_raw", "scores", "rlhf_reward"))
    kl, length = _curve(curves, "objective/kl"), _curve(curves, "objective/response_length")
    ended = [
        (row["step"], row["val/num_eos_tokens"] * row["step"] / row["episode"])
        for row in curves
        if row.get("val/num_eos_tokens") is not None and row.get("episode")
    ]
    both, judged = dict(kl), raw or score
    against = [(both[step], value) for step, value in judged if step in both]
    result = [
        ("Reward of the rollouts", judged, lambda: _lines(_reward_series(raw, score, rlhf), "mean reward")),
        ("KL from the reference", kl, lambda: _one_line("KL", kl, "nats per answer")),
        (
            "Reward against KL, step by step",
            against,
            lambda: charts.trail(against, x="KL, nats per answer", y="mean reward"),
        ),
        ("Answer length", length, lambda: _one_line("length", length, "tokens per answer")),
        (
            "Answers that end by themselves",
            ended,
            lambda: _one_line("ended", ended, "% of answers", wording.percent),
        ),
    ]
    return [(title, Markup(draw())) for title, points, draw in result if points]


def comparison_charts(results: Mapping[str, Any], rows: Sequence[samples.Sample]) -> Drawn:
    """Draw the answers' reward changes, and mean rewards side by side with the best of several untrained answers."""
    result, reward, best = histogram([samples.change(row) for row in rows]), results["reward"], results["best_of"]
    unit = f"reward ({results['reward_unit']})"
    bars = charts.histogram(
        result["edges"], result["counts"], x=f"change of {unit}", y="answers", below="worse", above="better"
    )
    sides = [("untrained", reward["baseline"], "a")]
    if best:
        sides.append((f"best of {best['n']} untrained answers", best["reward"], "c"))
    sides.append(("tuned", reward["tuned"], "b"))
    means = charts.intervals(sides, x=f"mean {unit}", middle=reward["baseline"]["value"], write=wording.number)
    return [("Reward change, answer by answer", Markup(bars)), ("Mean reward", Markup(means))]


def judge_charts(model: Mapping[str, Any] | None) -> Drawn:
    """Draw the reward model's held-out report."""
    if not model:
        return []
    rows = [("reward model", model["accuracy"], "b")]
    if cut := model.get("cut"):
        rows.append((f"on answers cut after {cut['max_new_tokens']} tokens", cut["accuracy"], "c"))
    rows += [(f"longer answer wins ({unit})", result, "a") for unit, result in model["longer_wins"].items()]
    accuracy = charts.intervals(rows, x="held-out pairs ordered as the raters did", middle=0.5, write=wording.percent)
    edges, counts = model["margins"]["edges"], model["margins"]["counts"]
    margins = charts.histogram(
        edges, counts, x="score of the better answer less the other's, logits", y="pairs", below="wrong", above="right"
    )
    return [
        ("Accuracy beside the length rule", Markup(accuracy)),
        ("Calibration", Markup(charts.reliability(model["calibration"]["bins"]))),
        ("Margins of held-out pairs", Markup(margins)),
    ]


def _reward_series(raw: list[charts.Point], score: list[charts.Point], rlhf: list[charts.Point]) -> list[charts.Series]:
    """Keep apart what the reward model says, what penalties make of it, and what the KL penalty leaves."""
    series = [charts.Series("reward model", raw, "b")] if raw else []
    if score and score != raw:
        # Without the raw figure nobody can tell whether a penalty is in this one.
        series.append(charts.Series("with penalties" if raw else "score", score, "c" if raw else "b"))
    return [*series, charts.Series("with KL penalty", rlhf, "a")] if rlhf else series


def _one_line(name: str, points: list[charts.Point], unit: str, write: wording.Write = wording.number) -> str:
    return _lines([charts.Series(name, points, "b")], unit, write)


def _lines(series: list[charts.Series], unit: str, write: wording.Write = wording.number) -> str:
    return charts.lines(series, x="PPO step", y=unit, write=write)


def _curve(curves: Metrics, name: str) -> list[charts.Point]:
    return [(row["step"], row[name]) for row in curves if row.get(name) is not None]
